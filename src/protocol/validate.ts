// Owns: the validators of every frame between the engine's client and its host. What passes is trusted afterwards (house
// invariant 3), what does not is a RingsideFailure "frame-invalid" that names the field.
import {
  backendNames,
  deviceCharacters,
  isaNames,
  kvFormats,
  lastSession,
  mainSession,
  maxDeviceMemoryBytes,
  maxDevices,
  maxThreads,
  repositoryCharacters,
} from "./engine";
import type {
  BatchMember,
  EngineReply,
  EngineRequest,
  EngineResult,
  GenerateDone,
  LoadRequest,
  LogitsDone,
  ModelInfo,
  Prompt,
  PromptPart,
  PromptPiece,
  SamplerOptions,
  SyncDone,
  SyncProgress,
  TokenBatch,
} from "./engine";
import { errorFieldCharacters, errorKinds } from "./errors";
import type { RingsideError } from "./errors";
import { choice, decimal, integer, list, object, optional, tagged, text, truth } from "./fields";
import type { Check } from "./fields";

export const maxTextsPerRequest = 100_000;
const maxTokens = 1 << 24;
const maxTextCharacters = 8 * 1024 * 1024; // no frame can hold more
const maxPathCharacters = 4_096;
const maxFloat32 = 3.5e38;

const requestId = integer(1, Number.MAX_SAFE_INTEGER);
const tokenId = integer(0, 0x7fffffff);
const tokens = integer(0, maxTokens);
const bytes = integer(0, Number.MAX_SAFE_INTEGER);
const milliseconds = decimal(0, 1e12);
const shortText = text(256);
const ids = list(maxTokens, tokenId);
const texts = list(maxTextsPerRequest, text(maxTextCharacters));
const float32 = decimal(-maxFloat32, maxFloat32);

export const ringsideError: Check<RingsideError> = object<RingsideError>({
  kind: choice(errorKinds),
  subject: text(errorFieldCharacters),
  expected: text(errorFieldCharacters),
  actual: text(errorFieldCharacters),
});

const load: Check<LoadRequest> = object<LoadRequest>({
  folder: text(maxPathCharacters),
  backend: choice(backendNames),
  threads: integer(0, maxThreads),
  slopeForm: choice(["A", "B", "C"]),
  isa: choice(["", ...isaNames]),
  kvFormat: choice(kvFormats),
  deviceMemoryBytes: integer(0, maxDeviceMemoryBytes),
  device: integer(-1, maxDevices - 1),
});

export const modelInfo: Check<ModelInfo> = object<ModelInfo>({
  folder: text(maxPathCharacters),
  layout: shortText,
  backend: shortText,
  device: text(deviceCharacters),
  isa: shortText,
  threads: integer(1, maxThreads),
  vocab: integer(1, maxTokens),
  vocabRows: integer(1, maxTokens),
  layers: integer(1, 4_096),
  linearLayers: integer(0, 4_096),
  heads: integer(1, 4_096),
  contextTokens: integer(1, 0x7fffffff),
  weightFileBytes: bytes,
  weightResidentBytes: bytes,
  stateBytes: bytes,
  kvBytesPerToken: bytes,
});

const sampler: Check<SamplerOptions> = object<SamplerOptions>({
  temperature: decimal(0, 100),
  topP: decimal(Number.MIN_VALUE, 1),
  repetitionPenalty: decimal(1, 100),
  seed: integer(0, Number.MAX_SAFE_INTEGER),
});

const session = integer(mainSession, lastSession);
const member: Check<BatchMember> = object<BatchMember>({
  session: integer(mainSession + 1, lastSession),
  maxTokens: integer(1, maxTokens),
  sampler,
  promptLookup: truth,
});
/** At least one, each session once. */
const members: Check<readonly BatchMember[]> = (value, field) => {
  const checked = list(lastSession, member)(value, field);
  integer(1, lastSession)(checked.length, `${field}.length`);
  integer(checked.length, checked.length)(new Set(checked.map((one) => one.session)).size, `${field} that differ`);
  return checked;
};

const promptPart: Check<PromptPart> = (value, field) =>
  typeof value === "object" && value !== null && Object.hasOwn(value, "special")
    ? object<{ special: string }>({ special: shortText })(value, field)
    : object<{ text: string }>({ text: text(maxTextCharacters) })(value, field);
const promptPiece: Check<PromptPiece> = object<PromptPiece>({ parts: list(10_000, promptPart) });
const prompt: Check<Prompt> = (value, field) => {
  const checked = object<Prompt>({
    pieces: list(maxTextsPerRequest, promptPiece),
    basePieces: integer(0, maxTextsPerRequest),
    deltaPieces: optional(integer(0, maxTextsPerRequest)),
  })(value, field);
  const { pieces, basePieces, deltaPieces = 0 } = checked;
  integer(0, pieces.length)(basePieces, `${field}.basePieces`);
  integer(0, pieces.length - basePieces)(deltaPieces, `${field}.deltaPieces`);
  return checked;
};

const syncProgress: Check<SyncProgress> = object<SyncProgress>({
  position: tokens,
  promptTokens: tokens,
  reusedTokens: tokens,
  tokensPerSecond: decimal(0, 1e9),
});
const syncDone: Check<SyncDone> = object<SyncDone>({
  promptTokens: tokens,
  reusedTokens: tokens,
  baseTokens: tokens,
  baseTokensRead: tokens,
  milliseconds,
});
const tokenBatch: Check<TokenBatch> = object<TokenBatch>({ ids, text: text(maxTextCharacters) });
const generateDone: Check<GenerateDone> = object<GenerateDone>({
  reason: choice(["stop-token", "token-limit", "context-full", "cancelled"]),
  tokens,
  milliseconds,
  firstTokenMs: milliseconds,
  drafted: bytes,
  accepted: tokens,
});
const logitsDone: Check<LogitsDone> = object<LogitsDone>({
  argmax: ids,
  logprobs: list(maxTokens, decimal(-maxFloat32, 0)),
  last: list(maxTokens, float32),
  stateNorms: list(4_096, list(4_096, decimal(0, maxFloat32))),
});

const request: Check<EngineRequest> = tagged<"type", EngineRequest>("type", {
  hello: { id: requestId, version: integer(1, 0x7fffffff) },
  load: { id: requestId, load },
  unload: { id: requestId },
  count: { id: requestId, texts },
  tokenize: { id: requestId, texts, special: truth },
  detokenize: { id: requestId, ids: list(maxTextsPerRequest, ids) },
  logits: { id: requestId, ids, split: list(maxTokens, integer(1, maxTokens)) },
  sync: { id: requestId, prompt, repository: text(repositoryCharacters), session },
  generate: { id: requestId, maxTokens: integer(1, maxTokens), sampler, promptLookup: truth },
  generateTogether: { id: requestId, members },
  cancel: { id: requestId, target: requestId, session },
});

const result: Check<EngineResult> = tagged<"of", EngineResult>("of", {
  hello: { version: integer(1, 0x7fffffff), pid: integer(1, 0xffffffff) },
  load: { info: modelInfo },
  unload: {},
  count: { tokens: list(maxTextsPerRequest, tokens) },
  tokenize: { ids: list(maxTextsPerRequest, ids) },
  detokenize: { texts },
  logits: { logits: logitsDone },
  sync: { sync: syncDone },
  generate: { generate: generateDone },
  generateTogether: { generate: list(lastSession, generateDone) },
  cancel: {},
});

const reply: Check<EngineReply> = tagged<"type", EngineReply>("type", {
  progress: { id: requestId, fraction: decimal(0, 1) },
  syncProgress: { id: requestId, progress: syncProgress },
  tokens: { id: requestId, session, batch: tokenBatch },
  result: { id: requestId, result },
  failed: { id: requestId, error: ringsideError },
});

/** Throws RingsideFailure "frame-invalid". */
export function parseEngineRequest(value: unknown): EngineRequest {
  return request(value, "request");
}

/** Throws RingsideFailure "frame-invalid". */
export function parseEngineReply(value: unknown): EngineReply {
  return reply(value, "reply");
}
