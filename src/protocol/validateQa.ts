// Owns: the validators of what the extension and the Q&A page say to each other; both sides parse before they believe.
import { modelInfo, ringsideError } from "./validate";
import { choice, decimal, integer, list, nullable, object, optional, tagged, text, truth } from "./fields";
import type { Check } from "./fields";
import { deviceCharacters } from "./engine";
import type { DeviceLoss, EngineState, EngineStatus } from "./engine";
import { doneReasons } from "./qa";
import type {
  AnswerStats,
  AskEvent,
  Citation,
  FromQaPage,
  PanelState,
  PlanSummary,
  ReadingProgress,
  RefusalCheck,
  ShardProgress,
  ToQaPage,
  TurnView,
} from "./qa";

const maxTurns = 10_000;
const maxPathCharacters = 4_096;
/** Far over questionLimitCharacters: a question that is too long gets an answer that says so, not silence. */
const maxQuestionCharacters = 2_000_000;
const maxAnswerCharacters = 16_000_000;
const maxTimestampMs = 8.64e15;

const count = integer(0, Number.MAX_SAFE_INTEGER);
const duration = decimal(0, 1e12);
const speed = decimal(0, 1e9);
const path = text(maxPathCharacters);
const line = integer(0, 0x7fffffff);
const turnId = integer(0, Number.MAX_SAFE_INTEGER);

const engineStates = ["stopped", "starting", "loading", "ready", "reading", "generating", "failed"] as const;
const engineStatus: Check<EngineStatus> = object<EngineStatus>({
  state: choice<EngineState>(engineStates),
  model: nullable(modelInfo),
  error: nullable(ringsideError),
  deviceLoss: nullable(object<DeviceLoss>({ error: ringsideError, times: count, onProcessor: truth })),
  prefillTokensPerSecond: optional(speed),
  decodeTokensPerSecond: optional(speed),
});

const plan: Check<PlanSummary> = object<PlanSummary>({
  budgetTokens: count,
  readFiles: count,
  totalFiles: count,
  readTokens: count,
  outlinedFiles: count,
  leftOutFiles: count,
  overTokens: count,
});

const citation: Check<Citation> = object<Citation>({
  id: count,
  kind: choice(["block", "path"]),
  path,
  startLine: line,
  endLine: line,
  status: choice(["verified", "relocated", "earlier", "not-found"]),
  namedPath: path,
  candidates: count,
  stale: truth,
  offset: count,
  length: count,
});
const citations = list(10_000, citation);

const refusal: Check<RefusalCheck> = object<RefusalCheck>({
  name: text(maxPathCharacters),
  places: list(5, object<RefusalCheck["places"][number]>({ path, line, wasRead: truth })),
});

const stats: Check<AnswerStats> = object<AnswerStats>({
  promptTokens: count,
  reusedTokens: count,
  prefillMs: duration,
  firstTokenMs: duration,
  prefillTokensPerSecond: optional(speed),
  decodeTokensPerSecond: optional(speed),
  generatedTokens: count,
  reasoningTokens: count,
  draftedTokens: optional(count),
  acceptedTokens: optional(count),
  backend: text(64),
  device: text(deviceCharacters),
});

const phases = ["scanning", "loading", "planning", "reading", "reasoning", "answering", "checking"] as const;
const reading = { position: count, promptTokens: count, tokensPerSecond: speed, secondsLeft: duration };

const shards: Check<ShardProgress> = object<ShardProgress>({
  total: count,
  first: count,
  last: count,
  asked: count,
  found: count,
});

const askEvent: Check<AskEvent> = tagged<"type", AskEvent>("type", {
  phase: { phase: choice(phases) },
  scan: { files: count },
  plan: { plan },
  reading,
  shards: { shards },
  reasoning: { text: text(maxAnswerCharacters), tokens: count },
  answer: { text: text(maxAnswerCharacters) },
  citations: { citations },
  refusal: { refusal },
  stats: { stats },
  done: { reason: choice(doneReasons) },
  failed: { error: ringsideError },
});

const turn: Check<TurnView> = object<TurnView>({
  id: turnId,
  question: text(maxQuestionCharacters),
  phase: choice<TurnView["phase"]>(["waiting", ...phases, "done", "failed"]),
  startedAtMs: decimal(0, maxTimestampMs),
  scannedFiles: count,
  plan: nullable(plan),
  reading: nullable(object<ReadingProgress>(reading)),
  shards: nullable(shards),
  reasoning: text(maxAnswerCharacters),
  reasoningTokens: count,
  reasoningMs: duration,
  reasoningStartedAtMs: optional(decimal(0, maxTimestampMs)),
  answer: text(maxAnswerCharacters),
  citations,
  refusal: nullable(refusal),
  stats: nullable(stats),
  doneReason: nullable(choice(doneReasons)),
  failure: nullable(object<NonNullable<TurnView["failure"]>>({ kind: text(64), message: text(20_000) })),
});

const panelState: Check<PanelState> = object<PanelState>({
  workspace: choice(["none", "restricted", "ready"]),
  engine: engineStatus,
  coverage: nullable(plan),
  changedFiles: count,
  readAhead: nullable(object<ReadingProgress>(reading)),
  scope: list(10_000, path),
  suggestions: list(100, text(2_000)),
  turns: list(maxTurns, turn),
  activeTurn: nullable(turnId),
});

const fromQaPage: Check<FromQaPage> = tagged<"type", FromQaPage>("type", {
  ready: {},
  ask: { text: text(maxQuestionCharacters), effort: choice(["off", "low", "high"]), exhaustive: truth },
  stop: {},
  openCitation: { turn: turnId, citation: count },
  openRefusalPlace: { turn: turnId, place: integer(0, 4) },
  readRefusalPlace: { turn: turnId, place: integer(0, 4) },
  chooseFolders: {},
  outlineFolders: {},
  showContext: {},
  showFiles: {},
  openFolder: {},
  newConversation: {},
  openLog: {},
  restartEngine: {},
  manageTrust: {},
  openLink: { href: text(8_192) },
  copy: { text: text(maxAnswerCharacters) },
  violation: { directive: text(8_192), blocked: text(8_192) },
});

const toQaPage: Check<ToQaPage> = tagged<"type", ToQaPage>("type", {
  state: { state: panelState },
  event: { turn: turnId, event: askEvent, failureMessage: optional(text(20_000)) },
  engine: { engine: engineStatus },
  readAhead: { reading: nullable(object<ReadingProgress>(reading)) },
  focusQuestion: { text: optional(text(maxQuestionCharacters)), exhaustive: optional(truth) },
});

/** null: not a message of the page. Nothing is done about it, because only a broken or hostile page sends one. */
export function parseFromQaPage(value: unknown): FromQaPage | null {
  return parsed(fromQaPage, value);
}

/** null: not a message of the extension. */
export function parseToQaPage(value: unknown): ToQaPage | null {
  return parsed(toQaPage, value);
}

function parsed<T>(check: Check<T>, value: unknown): T | null {
  try {
    return check(value, "message");
  } catch {
    return null;
  }
}
