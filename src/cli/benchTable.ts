// Owns: the tables of measured figures, docs/bench/<device>.csv and <device>-context.csv: their columns and adding rows to them.
// Must never change what an older row says.
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { promisify } from "node:util";
import { places } from "./places";

/** One measured figure, by column; what a row does not tell stays empty. */
export type BenchRow = Readonly<Record<string, unknown>>;

/** New columns come last, so that the rows of older tables keep their places. */
export const tableColumns = [
  ..."commit,date,device,backend,shape,quant,threads,test,depth,tok_s,gb_s,roofline_pct,peer,peer_tok_s,ratio".split(
    ",",
  ),
  ..."isa,kv,head_bits,sequences,to_one,bytes,distinct_experts,tops,peak_rss_bytes,rss_file_bytes,disturbed".split(","),
  ..."limit_gb_s,limit_tops,choice_us".split(","),
] as const;

/** Of `bench --context`; docs/PERFORMANCE.md says what they hold. */
export const contextColumns = [
  ..."commit,date,device,backend,threads,model,repository,files,file_bytes,test,ms,plan_ms,blocked_ms".split(","),
  ..."prompt_tokens,base_tokens,read_tokens,reread_tokens,edited_tokens,behind_tokens,prefill_ms,tok_s".split(","),
  ..."snapshots,disk_bytes,state_bytes,kv_token_bytes".split(","),
] as const;

/** Adds one line a row to the table of the rows' processor and returns its path. Without a commit: the one checked out. */
export async function appendToTable(
  rows: readonly BenchRow[],
  {
    measuredCommit,
    ofContext = false,
  }: { readonly measuredCommit?: string | undefined; readonly ofContext?: boolean } = {},
): Promise<string> {
  const columns: readonly string[] = ofContext ? contextColumns : tableColumns;
  const described = rows[0]?.["device"];
  // "Name (R) CPU, avx2, 2 threads": the table is the processor's.
  const [processor = ""] = (typeof described === "string" ? described : "unknown").split(", ");
  const device = processor
    .replaceAll(/\((R|TM)\)/gi, "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  const name = ofContext ? tableName(device).replace(".csv", "-context.csv") : tableName(device);
  const file = path.join(places.benchTables, name);
  await mkdir(places.benchTables, { recursive: true });
  const before = await readFile(file, "utf8").catch(() => "");
  const date = new Date().toISOString().slice(0, 10);
  const always: BenchRow = { commit: measuredCommit ?? (await commit()), date, device };
  const lines = rows.map((row) => columns.map((column) => cell({ ...row, ...always }[column])).join(","));
  await writeFile(file, `${[...widened(before, columns), ...lines].join("\n")}\n`);
  return path.relative(places.root, file);
}

/** "intel-xeon-processor" → "intel-xeon-processor.csv", "nvidia-h100-80gb-hbm3" → "h100.csv": of a card its number says all. */
export function tableName(device: string): string {
  return `${/^nvidia-(?:geforce-)?([a-z]*-?\d+(?:-(?:ti|super))*)/.exec(device)?.[1] ?? device}.csv`;
}

/** The lines of a table with today's header, the older rows filled up with empty cells. */
export function widened(table: string, columns: readonly string[] = tableColumns): readonly string[] {
  const [, ...rows] = table.split("\n").filter((line) => line !== "");
  return [
    columns.join(","),
    ...rows.map((row) => row + ",".repeat(Math.max(0, columns.length - row.split(",").length))),
  ];
}

function cell(value: unknown): string {
  if (typeof value === "number") return String(Number.isInteger(value) ? value : Number(value.toPrecision(6)));
  return typeof value === "string" ? value.replaceAll(/[,\r\n"]/g, " ") : "";
}

async function commit(): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)("git", ["rev-parse", "--short", "HEAD"], { cwd: places.root });
    return stdout.trim();
  } catch {
    return "";
  }
}
