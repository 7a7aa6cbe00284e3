// Owns: what a question would read, without asking one: for the coverage shown before the first question, the suggested
// questions and `ringside pack`. Must plan exactly as a question does.
import type { Ranking } from "../context/basePlan";
import { namesInQuestion } from "../context/identifiers";
import type { ContextPlan } from "../context/plan";
import type { ContextScanOptions } from "../context/repositoryContext";
import type { RepositoryScan } from "../context/scan";
import type { EnginePort, ModelInfo } from "../protocol/engine";
import { failure } from "../protocol/errors";
import type { FileChoices } from "../protocol/qa";
import type { AskDependencies } from "./ask";
import { shareTail, shareWindow } from "./budget";
import type { TailShares, WindowShares } from "./budget";
import type { HistoryTurn } from "./prompt";
import { headTokenText } from "./prompt";
import { suggestQuestions } from "./suggestions";

export interface PlannedQuestion {
  readonly plan: ContextPlan;
  /** The turns of the conversation that fit. */
  readonly history: readonly HistoryTurn[];
  /** What is left of the window for reasoning and answer, at least. */
  readonly generationTokens: number;
}

export interface QuestionToPlan {
  readonly text: string;
  readonly history: readonly HistoryTurn[];
  readonly scope: readonly string[];
  readonly pinned: readonly string[];
  readonly choices?: FileChoices;
  /** Without it, "complete". */
  readonly ranking?: Ranking;
  /** Less room for files than the window leaves; more is cut to that. */
  readonly budgetTokens?: number;
  /** See ContextRequest. */
  readonly rebase?: boolean;
}

/** How the window is shared when this is asked, with as much of the conversation as has room. */
export async function shareForQuestion(
  { text, history }: Pick<QuestionToPlan, "text" | "history">,
  engine: EnginePort,
  { scan, info }: { readonly scan: RepositoryScan; readonly info: ModelInfo },
  limitTokens?: number,
  signal?: AbortSignal,
): Promise<TailShares & WindowShares> {
  const conversation = history.map((turn) => `${turn.question}\n${turn.answer}`);
  const counted = await engine.countTokens([headTokenText(scan.name), text, ...conversation], signal);
  const [headTokens = 0, questionTokens = 0, ...turnTokens] = counted;
  const window = shareWindow(info.contextTokens, headTokens);
  const shares = { ...window, budgetTokens: Math.min(window.budgetTokens, limitTokens ?? window.budgetTokens) };
  const turns = history.map((turn, index) => ({ turn, tokens: turnTokens[index] ?? 0 }));
  return { ...shares, ...shareTail(shares, questionTokens, turns) };
}

/** Shares the window between files, question and conversation, and plans the files. */
export async function planQuestion(
  question: QuestionToPlan,
  context: AskDependencies["context"],
  engine: EnginePort,
  scan: RepositoryScan,
  info: ModelInfo,
  signal?: AbortSignal,
): Promise<PlannedQuestion> {
  const { text, history, scope, pinned, choices = {}, budgetTokens: wantedTokens } = question;
  const { ranking = "complete", rebase = false } = question;
  const shares = await shareForQuestion({ text, history }, engine, { scan, info }, wantedTokens, signal);
  const plan = await context.plan(
    scan,
    {
      model: info.folder,
      count: (texts, countSignal) => engine.countTokens(texts, countSignal),
      budgetTokens: shares.budgetTokens,
      availableTokens: shares.availableTokens,
      question: searchedText(text, shares.history),
      scope,
      pinned,
      choices,
      rebase,
      ranking,
    },
    signal,
  );
  return { plan, history: shares.history, generationTokens: shares.generationTokens };
}

/**
 * The words whose files the question needs. "Where is it used?" names nothing by itself: then the last question that did
 * still stands. The prompt holds the user's words as they are.
 */
export function searchedText(question: string, history: readonly HistoryTurn[]): string {
  const isNaming = (text: string): boolean => {
    const { certain, code } = namesInQuestion(text);
    return certain.length > 0 || code.length > 0;
  };
  if (isNaming(question)) return question;
  const earlier = history.findLast((turn) => isNaming(turn.question));
  return earlier === undefined ? question : `${question}\n${earlier.question}`;
}

/** What stands before the first question: nothing is asked, and so nothing but the base is planned. */
export const noQuestion: QuestionToPlan = { text: "", history: [], scope: [], pinned: [] };

export interface Preview extends PlannedQuestion {
  readonly scan: RepositoryScan;
  readonly info: ModelInfo;
  readonly suggestions: readonly string[];
}

/**
 * Scans the repository, loads the model and plans the base. Rejects with RingsideFailure. A stop does not end the loading: the
 * question that comes next needs the model as well.
 */
export async function preview(
  { context, engine, load }: AskDependencies,
  options: Partial<QuestionToPlan> & ContextScanOptions = {},
): Promise<Preview> {
  const { signal, onProgress, onlyNoted = false, ...question } = options;
  const loading = engine.load(load);
  loading.catch(() => undefined); // Awaited below; a failure meanwhile must not count as unhandled.
  const scan = await context.scan({ signal, onProgress, onlyNoted });
  const info = await orCancelled(loading, signal);
  const planned = await planQuestion({ ...noQuestion, ...question }, context, engine, scan, info, signal);
  return { ...planned, scan, info, suggestions: suggestQuestions(planned.plan.segments) };
}

/** The work itself goes on, but nobody who was stopped waits for it. */
async function orCancelled<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = (): void => reject(failure("cancelled"));
    if (signal?.aborted === true) cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    void work.then(resolve, reject).finally(() => signal?.removeEventListener("abort", cancel));
  });
}
