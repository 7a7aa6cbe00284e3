// Owns: what is done before a question is asked: planning what every question begins with, and reading it. Must plan exactly as
// a question does, and is stopped by its signal wherever it is: what was read until then stays read.
import type { ContextPlan } from "../context/plan";
import type { SyncDone } from "../protocol/engine";
import { failure } from "../protocol/errors";
import type { FileChoices, ReadingProgress } from "../protocol/qa";
import type { AskDependencies } from "./ask";
import { readingProgress } from "./generation";
import { noQuestion, planQuestion, preview } from "./preview";
import type { Preview } from "./preview";
import { standingPieces } from "./prompt";

export interface PlanAheadOptions {
  readonly scope?: readonly string[];
  readonly choices?: FileChoices;
  /** Told of each plan as soon as it is there. */
  readonly onPlan?: (plan: ContextPlan) => void;
  readonly signal?: AbortSignal;
}

export interface ReadAheadOptions extends PlanAheadOptions {
  /** The moment is idle: changed files are read in the place of their old copies, and not only behind them. */
  readonly rebase?: boolean;
  /** See RepositoryContext.scan. */
  readonly onlyNoted?: boolean;
  readonly onProgress?: (progress: ReadingProgress) => void;
}

export interface ReadAhead extends Preview {
  readonly sync: SyncDone;
}

/** What is shown comes at once, and is made good when every file is known. Rejects as readAhead does. */
export async function planAhead(
  dependencies: AskDependencies,
  { onPlan, signal, ...question }: PlanAheadOptions = {},
): Promise<void> {
  const stop = signal === undefined ? {} : { signal };
  const { scan, info, plan } = await preview(dependencies, { ...question, ranking: "first", ...stop });
  tell(onPlan, plan, signal);
  const { context, engine } = dependencies;
  const complete = await planQuestion({ ...noQuestion, ...question }, context, engine, scan, info, signal);
  tell(onPlan, complete.plan, signal);
}

/** Rejects with RingsideFailure: "cancelled" when the signal says so, "engine-busy" while a question is answered. */
export async function readAhead(
  dependencies: AskDependencies,
  { onPlan, onProgress, signal, ...question }: ReadAheadOptions = {},
): Promise<ReadAhead> {
  const stop = signal === undefined ? {} : { signal };
  // What is read stays, and so waits for the complete ranking.
  const planned = await preview(dependencies, { ...question, ranking: "complete", ...stop });
  tell(onPlan, planned.plan, signal);
  const { context, engine, repository = "" } = dependencies;
  const prompt = standingPieces({ repository: planned.scan.name, segments: planned.plan.prompt });
  const sync = await engine.sync(prompt, {
    repository,
    onProgress: (progress) => onProgress?.(readingProgress(progress)),
    ...stop,
  });
  await context.markRead(planned.plan);
  return { ...planned, sync };
}

/** A plan that came after the stop is of no interest to anybody. */
function tell(onPlan: PlanAheadOptions["onPlan"], plan: ContextPlan, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw failure("cancelled");
  onPlan?.(plan);
}
