// Owns: how a model's window is shared between the repository, the question with its conversation, and what is generated.
// Must never give out more than the window.
import { failure } from "../protocol/errors";
import type { HistoryTurn } from "./prompt";

export interface WindowShares {
  /** Room for files when question and conversation have their usual length: the same for every question. */
  readonly budgetTokens: number;
  /** Kept free for reasoning and answer. */
  readonly generationTokens: number;
  /** Kept free for a question of usual length. */
  readonly questionTokens: number;
}

const generationShare = 1 / 16;
const questionShare = 1 / 64;
/** Earlier turns may take this share of the budget; older ones are left out first. */
const historyShare = 1 / 8;
/** Files keep at least this share of the budget, or the question is refused as too long. */
const leastFilesShare = 1 / 4;
/** Role marks and line ends around one message. */
const messageTokens = 16;

/** `headTokens`: what stands before the first file. */
export function shareWindow(contextTokens: number, headTokens: number): WindowShares {
  const generationTokens = Math.floor(contextTokens * generationShare);
  const questionTokens = Math.floor(contextTokens * questionShare);
  const budgetTokens = contextTokens - generationTokens - questionTokens - headTokens - 2 * messageTokens;
  if (budgetTokens <= 0) throw failure("context-full", "window", "room for files", `${String(contextTokens)} tokens`);
  return { budgetTokens, generationTokens, questionTokens };
}

export interface TailShares {
  /** The turns that fit, oldest first. */
  readonly history: readonly HistoryTurn[];
  /** What is left for files. */
  readonly availableTokens: number;
}

/** Throws "context-full" when the question alone leaves no reasonable room for files. */
export function shareTail(
  shares: WindowShares,
  questionTokens: number,
  turns: readonly { readonly turn: HistoryTurn; readonly tokens: number }[],
): TailShares {
  const usual = shares.questionTokens;
  const mostQuestionTokens = usual + Math.floor(shares.budgetTokens * (1 - leastFilesShare));
  if (questionTokens > mostQuestionTokens) {
    throw failure("context-full", "question", `at most ${String(mostQuestionTokens)} tokens`, String(questionTokens));
  }
  let left = Math.min(shares.budgetTokens * historyShare, mostQuestionTokens - questionTokens);
  let historyTokens = 0;
  const history: HistoryTurn[] = [];
  for (const { turn, tokens } of [...turns].reverse()) {
    const cost = tokens + 2 * messageTokens;
    if (cost > left) break;
    left -= cost;
    historyTokens += cost;
    history.unshift(turn);
  }
  const excess = Math.max(0, questionTokens + historyTokens - usual);
  return { history, availableTokens: shares.budgetTokens - excess };
}
