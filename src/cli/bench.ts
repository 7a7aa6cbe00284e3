// Owns: `ringside bench`: its help, and what becomes of the rows; the measuring is the native tool's, or that of the benches beside.
import * as path from "node:path";
import { lastSession } from "../protocol/engine";
import { failure } from "../protocol/errors";
import { choiceOption, integerOption, loadRequest, parseCommand, UsageError } from "./arguments";
import { ownRows, readContextRows, readOwnRows, readPeerRows } from "./benchFiles";
import { measureContext, mediansOfTests } from "./benchContext";
import { measureLookup, showLookup } from "./benchLookup";
import { measureScan, showScan } from "./benchScan";
import { appendToTable } from "./benchTable";
import type { BenchRow } from "./benchTable";
import { withEngine } from "./engine";
import { runNativeTool } from "./nativeTool";
import { places } from "./places";
import { writeOut } from "./standardStreams";

const help = `ringside bench [options]

Measures prefill and decode on random weights of a shape, or on a checkpoint.

  --shape NAME         nano (default), nano8, mini or flash
  --quant NAME         bf16, q8 (default) or q4
  --head 4|8           bits of the output matrix where the rest has 4 (default 8)
  --group N            columns that share a scale: 32, 64 or 128 (default)
  --model DIR          a checkpoint folder instead of random weights
  --backend NAME       cpu (default) or cuda
  --kv NAME            keys and values in bf16 (default), f32 or q8
  --threads N          default: the physical cores
  --prompt N,N,…       tokens read, a row each (default 512)
  --generate N         tokens generated (default 64)
  --depths N,N,…       tokens that stand before (default 0,4096)
  --sequences N,N,…    also N sequences that generate together, as a ratio to one
  --reps N             repetitions (default 3)
  --isa NAME           an instruction set by name; default: the best of this machine
  --append             add the medians to docs/bench/<device>.csv
  --json               one JSON value on standard output and nothing else

ringside bench --append --peer FILE [--peer-note TEXT]

Adds the rows of a result file of the side-by-side harness, with the peer's speed and the ratio; measures nothing.
With --rows FILE instead, the rows that bench --json printed earlier, perhaps on another machine; --commit NAME says of
which commit they are (default: the one that is checked out).

ringside bench --align [--model DIR] [--text FILE] [--tokens N] [--kv NAME] [--isa NAME] [--threads N] [--json]

Compares chunked prefill, step decode and batched decode with the float64 reference on the same tokens (default: the
first 256 of the README) and the same weights (default: the embedded model). Exit code 1 when the three differ in a bit.

ringside bench --lookup --repo DIR --question TEXT [--question TEXT …] [--effort off|high] [--generate N] [--reps N]
                        [--model DIR] [--kv NAME] [--isa NAME] [--threads N] [--backend NAME] [--vram-limit SIZE]
                        [--device N] [--json]

Answers the questions with and without prompt lookup in turns, each in at most N tokens (default 256), and prints how much
faster the tokens come with it. Exit code 1 when they are not the same.

ringside bench --context --repo DIR [--name NAME] [--model DIR] [--kv NAME] [--isa NAME] [--threads N] [--backend NAME]
                         [--vram-limit SIZE] [--device N] [--json]
ringside bench --context --rows FILE,FILE,… [--append] [--json]

Plans and reads a copy of the repository and asks for the first token of answers: cold, warm, after a restart, and after
a line was changed at 10, 50 and 90 % of what was read. NAME is what the table calls it (default: the folder's name). The
second form takes what the first one printed as JSON, some times, and makes one row of each test: the medians.

ringside bench --scan --repo DIR --question TEXT [--shards N] [--shard-tokens N] [--generate N] [--reps N] [--no-lookup]
                      [as --lookup]

Puts the question to the N largest shards (default 8 of 2,048 tokens), one after another and as one batch in turns, and prints
how much sooner the batch is answered, the reading not counted. Exit code 1 when the tokens are not the same.`;

const options = {
  shape: { type: "string" },
  quant: { type: "string" },
  head: { type: "string" },
  group: { type: "string" },
  model: { type: "string" },
  kv: { type: "string" },
  threads: { type: "string" },
  prompt: { type: "string" },
  generate: { type: "string" },
  depths: { type: "string" },
  sequences: { type: "string" },
  reps: { type: "string" },
  isa: { type: "string" },
  append: { type: "boolean" },
  peer: { type: "string" },
  rows: { type: "string" },
  "peer-note": { type: "string" },
  commit: { type: "string" },
  align: { type: "boolean" },
  text: { type: "string" },
  tokens: { type: "string" },
  lookup: { type: "boolean" },
  context: { type: "boolean" },
  name: { type: "string" },
  scan: { type: "boolean" },
  shards: { type: "string" },
  "shard-tokens": { type: "string" },
  "no-lookup": { type: "boolean" },
  repo: { type: "string" },
  question: { type: "string", multiple: true },
  effort: { type: "string" },
  backend: { type: "string" },
  "vram-limit": { type: "string" },
  device: { type: "string" },
  json: { type: "boolean" },
} as const;

export async function benchCommand(arguments_: readonly string[]): Promise<number> {
  const { values } = parseCommand(arguments_, { help, options });
  if (values.align === true) {
    if (values.append === true) throw new UsageError("--align measures no speed that --append could add.");
    return align(arguments_, values);
  }
  if (values.lookup === true) return lookup(values);
  if (values.context === true) return context(values);
  if (values.scan === true) return scan(values);
  const { peer, rows: file } = values;
  if (peer !== undefined || file !== undefined) {
    if (values.append !== true) throw new UsageError("--peer and --rows give rows to add; say --append too.");
    if (peer !== undefined) await add(await readPeerRows(path.resolve(peer), values["peer-note"] ?? ""));
    if (file !== undefined) await add(await readOwnRows(path.resolve(file)), { measuredCommit: values.commit });
    return 0;
  }
  const passedOn = arguments_.filter((argument) => argument !== "--append");
  if (values.append !== true) return (await runNativeTool(["bench", ...passedOn])).exitCode;

  const measuring = passedOn.includes("--json") ? passedOn : [...passedOn, "--json"];
  const { exitCode, output } = await runNativeTool(["bench", ...measuring], { capture: true });
  if (exitCode !== 0) return exitCode;
  const shape: BenchRow = values.model === undefined ? {} : { shape: path.basename(path.resolve(values.model)) };
  const rows = rowsOf(output).map((row) => ({ ...shape, ...row }));
  process.stdout.write(`${output.trimEnd()}\n`);
  await add(rows);
  return 0;
}

async function align(
  arguments_: readonly string[],
  values: { readonly model?: string | undefined; readonly text?: string | undefined },
): Promise<number> {
  const model = values.model === undefined ? ["--model", places.embeddedModel] : [];
  const text = values.text === undefined ? ["--text", path.join(places.root, "README.md")] : [];
  return (await runNativeTool(["bench", ...arguments_, ...model, ...text])).exitCode;
}

async function lookup(
  values: Parameters<typeof loadRequest>[0] & {
    readonly [name in "repo" | "effort" | "generate" | "reps"]?: string | undefined;
  } & { readonly question?: readonly string[] | undefined } & {
    readonly [name in "append" | "json"]?: boolean | undefined;
  },
): Promise<number> {
  const { repo: repository, question: texts } = values;
  if (repository === undefined || texts === undefined) {
    throw new UsageError("--lookup needs --repo DIR and --question TEXT.");
  }
  if (values.append === true) throw new UsageError("--lookup measures no row that --append could add.");
  const effort = choiceOption(values.effort, "--effort", ["off", "high"], "high");
  const maxTokens = integerOption(values.generate, "--generate", [2, 1 << 24], 256);
  const rounds = integerOption(values.reps, "--reps", [1, 1_000], 3);
  const load = loadRequest(values);
  const report = await withEngine((engine) =>
    measureLookup(engine, load, { repository, texts, effort, maxTokens }, rounds),
  );
  await showLookup(report, values.json === true);
  return report.identical ? 0 : 1;
}

async function context(
  values: Parameters<typeof loadRequest>[0] & {
    readonly [name in "repo" | "name" | "rows"]?: string | undefined;
  } & { readonly [name in "append" | "json"]?: boolean | undefined },
): Promise<number> {
  const { repo, rows: files } = values;
  if ((repo === undefined) === (files === undefined))
    throw new UsageError("--context needs --repo DIR or --rows FILES.");
  if (files === undefined && values.append === true) throw new UsageError("Give --append the --rows of some rounds.");
  const rows =
    files === undefined
      ? await measuredRows(values, path.resolve(repo ?? ""))
      : mediansOfTests(await Promise.all(files.split(",").map((file) => readContextRows(path.resolve(file)))));
  if (values.json === true) await writeOut(`${JSON.stringify(rows, null, 1)}\n`);
  if (values.append === true) await add(rows, { ofContext: true });
  return 0;
}

async function measuredRows(
  values: Parameters<typeof loadRequest>[0] & { readonly name?: string | undefined },
  folder: string,
): Promise<readonly BenchRow[]> {
  const stop = new AbortController();
  const onInterrupt = (): void => stop.abort(failure("cancelled"));
  process.once("SIGINT", onInterrupt);
  try {
    return await measureContext({
      folder,
      name: path.basename(values.name ?? folder),
      load: loadRequest(values),
      signal: stop.signal,
      progress: (line) => process.stderr.write(`${line}\n`),
    });
  } finally {
    process.removeListener("SIGINT", onInterrupt);
  }
}

async function scan(
  values: Parameters<typeof loadRequest>[0] & {
    readonly [name in "repo" | "shards" | "shard-tokens" | "generate" | "reps"]?: string | undefined;
  } & { readonly question?: readonly string[] | undefined } & {
    readonly [name in "append" | "json" | "no-lookup"]?: boolean | undefined;
  },
): Promise<number> {
  const { repo: repository, question = [] } = values;
  const [text] = question;
  if (repository === undefined || text === undefined)
    throw new UsageError("--scan needs --repo DIR and --question TEXT.");
  if (values.append === true) throw new UsageError("--scan measures no row that --append could add.");
  const bench = {
    repository,
    text,
    shards: integerOption(values.shards, "--shards", [1, lastSession], 8),
    shardTokens: integerOption(values["shard-tokens"], "--shard-tokens", [64, 1 << 24], 2_048),
    maxTokens: integerOption(values.generate, "--generate", [2, 1 << 24], 256),
    promptLookup: values["no-lookup"] !== true,
  };
  const rounds = integerOption(values.reps, "--reps", [1, 1_000], 3);
  const load = loadRequest(values);
  const report = await withEngine((engine) => measureScan(engine, load, bench, rounds));
  await showScan(report, values.json === true);
  return report.identical ? 0 : 1;
}

async function add(rows: readonly BenchRow[], options: Parameters<typeof appendToTable>[1] = {}): Promise<void> {
  const table = await appendToTable(rows, options);
  process.stderr.write(`${String(rows.length)} rows added to ${table}\n`);
}

function rowsOf(output: string): readonly BenchRow[] {
  let value: unknown;
  try {
    value = JSON.parse(output) as unknown;
  } catch {
    throw failure("internal", "bench", "one JSON value", "other text");
  }
  const rows = ownRows(value);
  if (rows.length > 0) return rows;
  throw failure("internal", "bench", "a list of rows", "none");
}
