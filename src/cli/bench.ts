// Owns: `ringside bench`: its help, and adding rows to the tables of measured speeds; the measuring is the native tool's.
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { promisify } from "node:util";
import { failure } from "../protocol/errors";
import { parseCommand } from "./arguments";
import { runNativeTool } from "./nativeTool";
import { places } from "./places";

const help = `ringside bench [options]

Measures prefill and decode on random weights of a shape, or on a checkpoint.

  --shape NAME         nano (default), nano8, mini or flash
  --quant NAME         bf16 or q8 (default)
  --model DIR          a checkpoint folder instead of random weights
  --threads N          default: the physical cores
  --prompt N           tokens read (default 512)
  --generate N         tokens generated (default 64)
  --depths N,N,…       tokens that stand before (default 0,4096)
  --reps N             repetitions (default 3)
  --isa NAME           plain, avx2 or avx512; default: the best of this machine
  --append             add the medians to docs/bench/<device>.csv
  --json               one JSON value on standard output and nothing else`;

const tableColumns = [
  ..."commit,date,device,backend,shape,quant,threads,test,depth,tok_s,gb_s,roofline_pct,peer,peer_tok_s,ratio".split(
    ",",
  ),
] as const;

export async function benchCommand(arguments_: readonly string[]): Promise<number> {
  const { values } = parseCommand(arguments_, {
    help,
    options: {
      shape: { type: "string" },
      quant: { type: "string" },
      model: { type: "string" },
      threads: { type: "string" },
      prompt: { type: "string" },
      generate: { type: "string" },
      depths: { type: "string" },
      reps: { type: "string" },
      isa: { type: "string" },
      append: { type: "boolean" },
      json: { type: "boolean" },
    },
  });
  const passedOn = arguments_.filter((argument) => argument !== "--append");
  if (values.append !== true) return (await runNativeTool(["bench", ...passedOn])).exitCode;

  const measuring = passedOn.includes("--json") ? passedOn : [...passedOn, "--json"];
  const { exitCode, output } = await runNativeTool(["bench", ...measuring], { capture: true });
  if (exitCode !== 0) return exitCode;
  const rows = rowsOf(output);
  const file = await append(rows, settingsOf(values));
  process.stdout.write(`${output.trimEnd()}\n`);
  process.stderr.write(`${String(rows.length)} rows added to ${file}\n`);
  return 0;
}

type Row = Readonly<Record<string, unknown>>;

function rowsOf(output: string): readonly Row[] {
  let value: unknown;
  try {
    value = JSON.parse(output) as unknown;
  } catch {
    throw failure("internal", "bench", "one JSON value", "other text");
  }
  if (Array.isArray(value) && value.every((row) => typeof row === "object" && row !== null)) return value as Row[];
  throw failure("internal", "bench", "a list of rows", typeof value);
}

/** What the rows do not say: the options, the variables that the tool reads in their place, and its defaults. */
function settingsOf({
  shape = process.env["BENCH_SHAPE"] ?? "nano",
  quant = process.env["BENCH_QUANT"] ?? "q8",
  threads = process.env["BENCH_THREADS"] ?? "",
  model,
}: Readonly<Partial<Record<"shape" | "quant" | "threads" | "model", string>>>): Row {
  return model === undefined
    ? { shape, quant, threads }
    : { shape: path.basename(path.resolve(model)), quant: "", threads };
}

/** One line a row; what a row does not tell is taken from the options or left empty. */
async function append(rows: readonly Row[], settings: Row): Promise<string> {
  const described = rows[0]?.["device"];
  // "Name (R) CPU, avx2, 2 threads": the table is the processor's, the threads are a column.
  const [processor = "", ...details] = (typeof described === "string" ? described : "unknown").split(", ");
  const device = processor
    .replaceAll(/\((R|TM)\)/gi, "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  const threads = /(\d+) threads/.exec(details.join(" "))?.[1] ?? settings["threads"];
  const file = path.join(places.benchTables, `${device}.csv`);
  await mkdir(places.benchTables, { recursive: true });
  const before = await readFile(file, "utf8").catch(() => `${tableColumns.join(",")}\n`);
  const always: Row = { commit: await commit(), date: new Date().toISOString().slice(0, 10), device, threads };
  const lines = rows.map((row) => {
    const cells: Row = { ...settings, ...row, ...always };
    return `${tableColumns.map((column) => cell(cells[column])).join(",")}\n`;
  });
  await writeFile(file, before + lines.join(""));
  return path.relative(places.root, file);
}

function cell(value: unknown): string {
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  return typeof value === "string" ? value.replaceAll(/[,\n"]/g, " ") : "";
}

async function commit(): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)("git", ["rev-parse", "--short", "HEAD"], { cwd: places.root });
    return stdout.trim();
  } catch {
    return "";
  }
}
