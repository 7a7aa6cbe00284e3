// Owns: reading what every question about a repository begins with, before one is asked. Must plan exactly as a question does, and
// is stopped by its signal wherever it is: what was read until then stays read.
import type { SyncDone, SyncProgress } from "../protocol/engine";
import type { FileChoices } from "../protocol/qa";
import type { AskDependencies } from "./ask";
import { preview } from "./preview";
import type { Preview } from "./preview";
import { standingPieces } from "./prompt";

export interface ReadAheadOptions {
  readonly scope?: readonly string[];
  readonly choices?: FileChoices;
  /** The moment is idle: changed files are read in the place of their old copies, and not only behind them. */
  readonly rebase?: boolean;
  readonly onProgress?: (progress: SyncProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ReadAhead extends Preview {
  readonly sync: SyncDone;
}

/** Rejects with RingsideFailure: "cancelled" when the signal says so, "engine-busy" while a question is answered. */
export async function readAhead(
  dependencies: AskDependencies,
  { onProgress, signal, ...question }: ReadAheadOptions = {},
): Promise<ReadAhead> {
  const stop = signal === undefined ? {} : { signal };
  const planned = await preview(dependencies, { ...question, ...stop });
  const { context, engine, repository = "" } = dependencies;
  const prompt = standingPieces({ repository: planned.scan.name, segments: planned.plan.prompt });
  const sync = await engine.sync(prompt, { repository, ...stop, ...(onProgress === undefined ? {} : { onProgress }) });
  await context.markRead(planned.plan);
  return { ...planned, sync };
}
