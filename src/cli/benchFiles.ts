// Owns: reading files of measured rows: what `bench --json` printed, and results of the side-by-side harness, in which
// another engine and this one took turns in one run.
// Must never compute a ratio of figures from different runs: ratios are the medians that the harness formed round by round.
import { readFile } from "node:fs/promises";
import { failure } from "../protocol/errors";
import type { BenchRow } from "./benchTable";

/** One row a test and depth that both engines measured: this engine's figures, the peer's speed and the ratio. */
export async function readPeerRows(file: string, note: string): Promise<readonly BenchRow[]> {
  return someRows(file, peerRows(await readJson(file), note), "a result of the harness with rows of both engines");
}

/** What `bench --json` printed, kept in a file. */
export async function readOwnRows(file: string): Promise<readonly BenchRow[]> {
  return someRows(file, ownRows(await readJson(file)), "rows as bench --json prints them");
}

/** What `bench --context --json` printed, kept in a file. */
export async function readContextRows(file: string): Promise<readonly BenchRow[]> {
  const rows = list(await readJson(file)).map(record);
  const isMeasured = (row: BenchRow): boolean =>
    typeof row["test"] === "string" && typeof row["repository"] === "string";
  return someRows(file, rows.filter(isMeasured), "rows as bench --context --json prints them");
}

async function readJson(file: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    const isMissing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw failure(
      isMissing ? "file-missing" : "file-unreadable",
      file,
      "",
      cause instanceof Error ? cause.message : "",
    );
  }
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw failure("file-malformed", file, "JSON", "other text");
  }
}

function someRows(file: string, rows: readonly BenchRow[], expected: string): readonly BenchRow[] {
  if (rows.length > 0) return rows;
  throw failure("file-malformed", file, expected, "none");
}

/** The rows of a list; what is no measured row is left out. */
export function ownRows(result: unknown): readonly BenchRow[] {
  return list(result)
    .map(record)
    .filter((row) => typeof row["test"] === "string" && typeof row["tok_s"] === "number");
}

/** The same from the parsed file; what does not have the harness's form is left out. */
export function peerRows(result: unknown, note: string): readonly BenchRow[] {
  const { engine, shape, quant, info, summary, command } = record(result);
  const { batch } = record(info);
  const peer = [engine, shape, quant, typeof batch === "number" ? `batch ${String(batch)}` : "", note]
    .filter((part) => typeof part === "string" && part !== "")
    .join(" ");
  const own = list(record(command)["rounds"]).flatMap((round) => list(record(round)["rows"]).map(record));
  return list(summary)
    .map(record)
    .flatMap((line) => {
      const { test, depth, median: peerSpeed, vs_median: speed, ratio_median: ratio } = line;
      const same = own.filter((row) => row["test"] === test && (row["depth"] ?? 0) === depth);
      if (typeof speed !== "number" || typeof peerSpeed !== "number" || typeof ratio !== "number") return [];
      // Rows that other programs disturbed, of the peer's: only a row without any is worth quoting.
      const disturbed =
        typeof line["disturbed"] === "number" ? `${String(line["disturbed"])}/${String(line["reps"])}` : "";
      return [{ ...middle(same), test, depth, tok_s: speed, peer, peer_tok_s: peerSpeed, ratio, disturbed }];
    });
}

/** The rounds of one figure as one row: medians of numbers, the first round's words. */
export function middle(rows: readonly BenchRow[]): BenchRow {
  const entries = Object.entries(rows[0] ?? {}).map(([name, first]) => {
    const numbers = rows.map((row) => row[name]).filter((value) => typeof value === "number");
    return [name, numbers.length > 0 ? median(numbers) : first] as const;
  });
  return Object.fromEntries(entries);
}

export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? Number.NaN) + upper) / 2;
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
