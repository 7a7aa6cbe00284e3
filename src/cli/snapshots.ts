// Owns: `ringside snapshots`: what is kept of which repository, how large it is, and deleting it.
import * as path from "node:path";
import { clearSnapshots, listSnapshots } from "../engine/client";
import { parseCommand, UsageError } from "./arguments";
import { printable } from "./pack";
import { places } from "./places";
import { writeOut } from "./standardStreams";

const help = `ringside snapshots list [--json]
ringside snapshots clear [--repo DIR]

What was read of a repository is kept, so that the next question need not read it again. Deleting it costs that time, and
changes no answer. Without --repo, clear deletes all of it.

  --repo DIR           this repository's only
  --folder DIR         where they lie (default: ${places.snapshots})
  --json               one JSON value on standard output and nothing else`;

const options = { repo: { type: "string" }, folder: { type: "string" }, json: { type: "boolean" } } as const;

interface Kept {
  readonly repository: string;
  readonly snapshots: number;
  readonly tokens: number;
  readonly bytes: number;
  readonly used: string;
}

export async function snapshotsCommand(arguments_: readonly string[]): Promise<number> {
  const { values, positionals } = parseCommand(arguments_, { help, options, positionals: [1, 1] });
  const folder = values.folder ?? places.snapshots;
  if (positionals[0] === "list") return list(folder, values.json === true);
  if (positionals[0] !== "clear") throw new UsageError('Say "list" or "clear".');
  const bytes = await clearSnapshots(folder, values.repo === undefined ? undefined : path.resolve(values.repo));
  await writeOut(values.json === true ? `${JSON.stringify({ bytes })}\n` : `${megabytes(bytes)} deleted.\n`);
  return 0;
}

async function list(folder: string, json: boolean): Promise<number> {
  const kept = new Map<string, Kept>();
  for (const { label: repository, toTokens, fileBytes, usedMs } of await listSnapshots(folder)) {
    const before = kept.get(repository);
    const used = new Date(usedMs).toISOString();
    kept.set(repository, {
      repository,
      snapshots: (before?.snapshots ?? 0) + 1,
      tokens: Math.max(before?.tokens ?? 0, toTokens),
      bytes: (before?.bytes ?? 0) + fileBytes,
      used: before !== undefined && before.used > used ? before.used : used,
    });
  }
  const rows = [...kept.values()].sort((left, right) => right.used.localeCompare(left.used));
  if (json) {
    await writeOut(`${JSON.stringify(rows, null, 1)}\n`);
    return 0;
  }
  const lines = rows.map(
    ({ repository, snapshots, tokens, bytes, used }) =>
      `${printable(repository)}\n  ${String(snapshots)} states, up to ${tokens.toLocaleString("en-US")} tokens, ${megabytes(bytes)}, used ${used}`,
  );
  await writeOut(lines.length === 0 ? "Nothing is kept.\n" : `${lines.join("\n")}\n`);
  return 0;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toLocaleString("en-US", { maximumFractionDigits: 1 })} MB`;
}
