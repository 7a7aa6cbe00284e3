// Owns: what one question is and what happens to it, as plain data: between src/answer/ and its front doors, and between
// the extension and the Q&A page. Imports nothing but this room.
import type { EngineStatus } from "./engine";
import type { RingsideError } from "./errors";

export const questionLimitCharacters = 20_000;

export type Effort = "off" | "low" | "high";

export type FileMode = "full" | "outline" | "dropped";
/** Why a file is not in the context. Worded at the door. */
export type DropReason =
  | "ignored"
  | "binary"
  | "too-large"
  | "minified"
  | "generated"
  | "lock-file"
  | "secret"
  | "symlink"
  | "unreadable"
  | "out-of-scope"
  | "over-budget"
  | "chosen-out"
  | "file-limit";
/** Why a file is in the context. */
export type KeepReason = "base" | "supplement" | "pinned" | "chosen";
/** What the user wants of a file or folder, whatever its rank; kept for each workspace. */
export type FileChoice = "full" | "outline" | "out";
/**
 * By path; a folder's ends with "/" and stands for everything in it that no longer path names. "automatic": the plan decides, whatever
 * was chosen for a folder around it.
 */
export type FileChoices = Readonly<Record<string, FileChoice | "automatic">>;
export interface PlannedFile {
  readonly path: string;
  /** 0 when it was never counted. */
  readonly tokens: number;
  readonly mode: FileMode;
  readonly reason: DropReason | KeepReason;
}
export interface PlanSummary {
  readonly budgetTokens: number;
  readonly readFiles: number;
  /** All text files that could have been read: ignored, binary and the like not counted. */
  readonly totalFiles: number;
  readonly readTokens: number;
  /** Files of which only the outline is read, and files that are not read at all, because the window is too small for them. */
  readonly outlinedFiles: number;
  readonly leftOutFiles: number;
  /** About how many tokens the repository has beyond the budget; 0: it fits. */
  readonly overTokens: number;
}

/** How far a question that is put to every shard of the repository is. */
export interface ShardProgress {
  readonly total: number;
  /** Those at work now, counted from 1. */
  readonly first: number;
  readonly last: number;
  /** Of those that were asked, so many had an answer. */
  readonly asked: number;
  readonly found: number;
}

/** "earlier": it stands nowhere now, but stood in the copy of `path` that the model read before the file was changed. */
export type CitationStatus = "verified" | "relocated" | "earlier" | "not-found";

/** Whether it stands in a file as it is now. */
export function isFound({ status }: Pick<Citation, "status">): boolean {
  return status === "verified" || status === "relocated";
}

export interface Citation {
  /** Unique within its turn, ascending in the order of the answer. */
  readonly id: number;
  readonly kind: "block" | "path";
  readonly path: string;
  /** 1-based, inclusive; 0 when there is no place. */
  readonly startLine: number;
  readonly endLine: number;
  readonly status: CitationStatus;
  /** What the model said, when it differs from `path` or when nothing was found; "" when it named nothing. */
  readonly namedPath: string;
  /** How many places the quote stands in. */
  readonly candidates: number;
  /** The file changed on disk after the model read it. */
  readonly stale: boolean;
  /** Offset of the block or path in the answer's Markdown, in UTF-16 units; and its length. */
  readonly offset: number;
  readonly length: number;
}

/** A refusal of the model, checked by plain text search over all files, dropped ones included. */
export interface RefusalCheck {
  readonly name: string;
  /** Where the name really stands; empty: nowhere. At most 5. */
  readonly places: readonly { readonly path: string; readonly line: number; readonly wasRead: boolean }[];
}

export interface AnswerStats {
  readonly promptTokens: number;
  readonly reusedTokens: number;
  readonly prefillMs: number;
  /** From the question to the first generated token. */
  readonly firstTokenMs: number;
  readonly prefillTokensPerSecond?: number;
  readonly decodeTokensPerSecond?: number;
  readonly generatedTokens: number;
  readonly reasoningTokens: number;
  /** Absent when prompt lookup tried nothing. */
  readonly draftedTokens?: number;
  readonly acceptedTokens?: number;
  readonly backend: string;
  readonly device: string;
}

/** "repetition": the model repeated itself without end and was stopped. */
export const doneReasons = ["complete", "stopped", "token-limit", "context-full", "repetition"] as const;
export type DoneReason = (typeof doneReasons)[number];

/** What happens to one question, in order. Text events carry the new part only, `tokens` counts the tokens of that part. */
export type AskEvent =
  | {
      readonly type: "phase";
      readonly phase: "scanning" | "loading" | "planning" | "reading" | "reasoning" | "answering" | "checking";
    }
  | { readonly type: "scan"; readonly files: number }
  | { readonly type: "plan"; readonly plan: PlanSummary }
  | {
      readonly type: "reading";
      readonly position: number;
      readonly promptTokens: number;
      readonly tokensPerSecond: number;
      readonly secondsLeft: number;
    }
  | { readonly type: "shards"; readonly shards: ShardProgress }
  | { readonly type: "reasoning"; readonly text: string; readonly tokens: number }
  | { readonly type: "answer"; readonly text: string }
  | { readonly type: "citations"; readonly citations: readonly Citation[] }
  | { readonly type: "refusal"; readonly refusal: RefusalCheck }
  | { readonly type: "stats"; readonly stats: AnswerStats }
  | { readonly type: "done"; readonly reason: DoneReason }
  | { readonly type: "failed"; readonly error: RingsideError };

/** Everything the page needs to draw one question; built from AskEvents by applyEvent() in turn.ts, on both sides of the wall. */
export interface TurnView {
  readonly id: number;
  readonly question: string;
  readonly phase:
    | "waiting"
    | "scanning"
    | "loading"
    | "planning"
    | "reading"
    | "reasoning"
    | "answering"
    | "checking"
    | "done"
    | "failed";
  readonly startedAtMs: number;
  readonly scannedFiles: number;
  readonly plan: PlanSummary | null;
  readonly reading: ReadingProgress | null;
  /** null: the question is not put to every shard, or not yet. */
  readonly shards: ShardProgress | null;
  readonly reasoning: string;
  readonly reasoningTokens: number;
  readonly reasoningMs: number;
  /** When the reasoning began, for a running timer; absent before. */
  readonly reasoningStartedAtMs?: number;
  readonly answer: string;
  readonly citations: readonly Citation[];
  readonly refusal: RefusalCheck | null;
  readonly stats: AnswerStats | null;
  readonly doneReason: DoneReason | null;
  /** Worded by the extension. */
  readonly failure: { readonly kind: string; readonly message: string } | null;
}

/** How far the reading of a prompt has come. */
export type ReadingProgress = Omit<Extract<AskEvent, { readonly type: "reading" }>, "type">;

export interface PanelState {
  readonly workspace: "none" | "restricted" | "ready";
  readonly engine: EngineStatus;
  readonly coverage: PlanSummary | null;
  /** Files that are others on the disk than the model read. */
  readonly changedFiles: number;
  /** The repository is being read without a question; null: it is not. */
  readonly readAhead: ReadingProgress | null;
  /** Folders the user limited reading to; empty: all. */
  readonly scope: readonly string[];
  readonly suggestions: readonly string[];
  readonly turns: readonly TurnView[];
  /** Question that runs, or null. */
  readonly activeTurn: number | null;
}

/** Q&A page → extension. Pages name things by id, never by path (house invariant 4). */
export type FromQaPage =
  | { readonly type: "ready" }
  /** `exhaustive`: every file is read, shard by shard, however large the repository is. */
  | { readonly type: "ask"; readonly text: string; readonly effort: Effort; readonly exhaustive: boolean }
  | { readonly type: "stop" }
  | { readonly type: "openCitation"; readonly turn: number; readonly citation: number }
  | { readonly type: "openRefusalPlace"; readonly turn: number; readonly place: number }
  | { readonly type: "readRefusalPlace"; readonly turn: number; readonly place: number }
  | { readonly type: "chooseFolders" }
  | { readonly type: "outlineFolders" }
  | { readonly type: "showContext" }
  | { readonly type: "showFiles" }
  | { readonly type: "openFolder" }
  | { readonly type: "newConversation" }
  | { readonly type: "openLog" }
  | { readonly type: "restartEngine" }
  | { readonly type: "manageTrust" }
  /** A link of the answer's Markdown; the extension asks before it opens http(s) addresses and refuses all others. */
  | { readonly type: "openLink"; readonly href: string }
  | { readonly type: "copy"; readonly text: string }
  /** A Content-Security-Policy violation seen by the page; logged, and failed on by the tests. */
  | { readonly type: "violation"; readonly directive: string; readonly blocked: string };

/** Extension → Q&A page. */
export type ToQaPage =
  | { readonly type: "state"; readonly state: PanelState }
  | { readonly type: "event"; readonly turn: number; readonly event: AskEvent; readonly failureMessage?: string }
  | { readonly type: "engine"; readonly engine: EngineStatus }
  | { readonly type: "readAhead"; readonly reading: ReadingProgress | null }
  /** `exhaustive`: the next question is meant to be so. */
  | { readonly type: "focusQuestion"; readonly text?: string; readonly exhaustive?: boolean };
