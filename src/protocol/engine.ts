// Owns: the words spoken between the engine's client and the engine host process, and the port that the rooms above use.
// Imports nothing but this room. Every message is validated on arrival (validate.ts) and framed by frame.ts.
import type { RingsideError } from "./errors";

export const engineProtocolVersion = 4;

/** With this code the engine process ends when it lost its device: no further call on it could succeed ("device-lost"). */
export const deviceLostExitCode = 86;

/** As kMaxThreads in native/engine.h. */
export const maxThreads = 512;

/** As kMaxDevices and kMaxDeviceMemoryBytes in native/engine.h. */
export const maxDevices = 64;
export const maxDeviceMemoryBytes = 2 ** 50;

/** The instruction sets with kernels of their own, as native/cpu/isa.h names them; which of them run is the machine's affair. */
export const isaNames = [
  "plain",
  "avx2",
  "avxvnni",
  "avx512",
  "avx512vnni",
  "avx512bf16",
  "amx",
  "neon",
  "dotprod",
  "i8mm",
] as const;
export type IsaName = (typeof isaNames)[number];

/** "auto": a GPU where one takes the model, else the processor; the device's name says why. As native/engine.h. */
export const backendNames = ["auto", "cpu", "cuda", "reference"] as const;
export type BackendName = (typeof backendNames)[number];

/** The longest name under which what was read of a repository is kept. */
export const repositoryCharacters = 4_096;

/** The session of the conversation. The others, up to the last, hold the prompts of which the answers are generated together. */
export const mainSession = 0;
export const lastSession = 64;

/** The longest name of a device: it tells, where that is so, why the model is not on a GPU. */
export const deviceCharacters = 512;

/** How keys and values of the softmax layers are kept: in 2, 4 or 1 bytes each. */
export const kvFormats = ["bf16", "f32", "q8"] as const;
export type KvFormat = (typeof kvFormats)[number];

/** What stands between two cuts of a prompt; the parts of a piece are encoded one by one, pieces always separately (house 3a). */
export interface PromptPiece {
  readonly parts: readonly PromptPart[];
}
/** `special`: an added token put in by id; a model that lacks it gets the same characters as plain text. `text`: plain characters, added tokens off. */
export type PromptPart = { readonly special: string } | { readonly text: string };

/** A whole prompt. The caller always hands over all of it; the host decides what is read again (house invariant 7). */
export interface Prompt {
  readonly pieces: readonly PromptPiece[];
  /** Index of the first piece that does not belong to the repository's base: a snapshot is kept for what stands before it. */
  readonly basePieces: number;
  /** So many pieces behind the base tell what became of it since: a snapshot is kept for the end of each. Absent: none. */
  readonly deltaPieces?: number;
}

export interface LoadRequest {
  readonly folder: string;
  readonly backend: BackendName;
  /** 0: the number of physical cores. */
  readonly threads: number;
  readonly slopeForm: "A" | "B" | "C";
  /** "": the best of this machine. */
  readonly isa: IsaName | "";
  readonly kvFormat: KvFormat;
  /** The most of a GPU's memory that the model may take, its sessions included; 0: what is free. */
  readonly deviceMemoryBytes: number;
  /** Number of the GPU as the driver counts, from 0; -1: the one with most free memory. */
  readonly device: number;
}

export interface ModelInfo {
  readonly folder: string;
  readonly layout: string;
  readonly backend: string;
  readonly device: string;
  readonly isa: string;
  readonly threads: number;
  readonly vocab: number;
  readonly vocabRows: number;
  readonly layers: number;
  readonly linearLayers: number;
  readonly heads: number;
  readonly contextTokens: number;
  readonly weightFileBytes: number;
  readonly weightResidentBytes: number;
  readonly stateBytes: number;
  readonly kvBytesPerToken: number;
}

export interface SamplerOptions {
  /** 0: greedy. */
  readonly temperature: number;
  readonly topP: number;
  readonly repetitionPenalty: number;
  readonly seed: number;
}

export interface SyncProgress {
  /** Tokens of the prompt that are in the state now, reused ones included. */
  readonly position: number;
  readonly promptTokens: number;
  readonly reusedTokens: number;
  /** Measured since this sync began. */
  readonly tokensPerSecond: number;
}
export interface SyncDone {
  readonly promptTokens: number;
  readonly reusedTokens: number;
  /** Tokens before the piece `basePieces`. */
  readonly baseTokens: number;
  /** Of those, read again in this sync. */
  readonly baseTokensRead: number;
  readonly milliseconds: number;
}
export interface TokenBatch {
  readonly ids: readonly number[];
  /** Complete UTF-8 of these tokens, special tokens spelled out (`<think>`). */
  readonly text: string;
}
export type StopReason = "stop-token" | "token-limit" | "context-full" | "cancelled";
export interface GenerateDone {
  readonly reason: StopReason;
  readonly tokens: number;
  readonly milliseconds: number;
  /** From the start of generate() to its first token. */
  readonly firstTokenMs: number;
  /** Tokens that prompt lookup tried, and those of them that were right. */
  readonly drafted: number;
  readonly accepted: number;
}
/** One of the sessions whose answers are generated together. */
export interface BatchMember {
  /** From 1 to lastSession. */
  readonly session: number;
  readonly maxTokens: number;
  readonly sampler: SamplerOptions;
  readonly promptLookup: boolean;
}
export interface LogitsDone {
  readonly argmax: readonly number[];
  readonly logprobs: readonly number[];
  readonly last: readonly number[];
  readonly stateNorms: readonly (readonly number[])[];
}

/** Client → host. `id` is the request's; replies carry it. */
export type EngineRequest =
  | { readonly type: "hello"; readonly id: number; readonly version: number }
  | { readonly type: "load"; readonly id: number; readonly load: LoadRequest }
  | { readonly type: "unload"; readonly id: number }
  | { readonly type: "count"; readonly id: number; readonly texts: readonly string[] }
  | { readonly type: "tokenize"; readonly id: number; readonly texts: readonly string[]; readonly special: boolean }
  | { readonly type: "detokenize"; readonly id: number; readonly ids: readonly (readonly number[])[] }
  | { readonly type: "logits"; readonly id: number; readonly ids: readonly number[]; readonly split: readonly number[] }
  | {
      readonly type: "sync";
      readonly id: number;
      readonly prompt: Prompt;
      readonly repository: string;
      readonly session: number;
    }
  | {
      readonly type: "generate";
      readonly id: number;
      readonly maxTokens: number;
      readonly sampler: SamplerOptions;
      readonly promptLookup: boolean;
    }
  | { readonly type: "generateTogether"; readonly id: number; readonly members: readonly BatchMember[] }
  /** `session`: of a batch, the one to stop; mainSession: all of the target. */
  | { readonly type: "cancel"; readonly id: number; readonly target: number; readonly session: number };

/** Host → client. Exactly one of `result` or `failed` ends each request. */
export type EngineReply =
  | { readonly type: "progress"; readonly id: number; readonly fraction: number }
  | { readonly type: "syncProgress"; readonly id: number; readonly progress: SyncProgress }
  | { readonly type: "tokens"; readonly id: number; readonly session: number; readonly batch: TokenBatch }
  | { readonly type: "result"; readonly id: number; readonly result: EngineResult }
  | { readonly type: "failed"; readonly id: number; readonly error: RingsideError };

export type EngineResult =
  | { readonly of: "hello"; readonly version: number; readonly pid: number }
  | { readonly of: "load"; readonly info: ModelInfo }
  | { readonly of: "unload" }
  | { readonly of: "count"; readonly tokens: readonly number[] }
  | { readonly of: "tokenize"; readonly ids: readonly (readonly number[])[] }
  | { readonly of: "detokenize"; readonly texts: readonly string[] }
  | { readonly of: "logits"; readonly logits: LogitsDone }
  | { readonly of: "sync"; readonly sync: SyncDone }
  | { readonly of: "generate"; readonly generate: GenerateDone }
  | { readonly of: "generateTogether"; readonly generate: readonly GenerateDone[] }
  | { readonly of: "cancel" };

export type EngineState = "stopped" | "starting" | "loading" | "ready" | "reading" | "generating" | "failed";
/** What became of a GPU that stopped working. */
export interface DeviceLoss {
  readonly error: RingsideError;
  /** Of late. */
  readonly times: number;
  /** The model is loaded on the processor from now on, because the GPU failed again. */
  readonly onProcessor: boolean;
}

export interface EngineStatus {
  readonly state: EngineState;
  readonly model: ModelInfo | null;
  /** The last failure that left the engine in "failed" or "stopped". */
  readonly error: RingsideError | null;
  /** Until the user restarts the engine or asks for another model. */
  readonly deviceLoss: DeviceLoss | null;
  /** Last measured speeds, absent when never measured. */
  readonly prefillTokensPerSecond?: number;
  readonly decodeTokensPerSecond?: number;
}

/**
 * What the rooms above see of the engine (implemented by src/engine/client.ts). Every promise rejects with
 * RingsideFailure; an aborted signal rejects with kind "cancelled". load() is idempotent for equal options; the other calls
 * load the last given model when the process was restarted, and generate() reads the last prompt again. What was lost with a
 * GPU is done again, except for a generation of which tokens were told. One sync/generate runs at a time ("engine-busy").
 */
export interface EnginePort {
  status(): EngineStatus;
  onStatus(listener: (status: EngineStatus) => void): () => void;
  load(
    request: LoadRequest,
    options?: { onProgress?: (fraction: number) => void; signal?: AbortSignal },
  ): Promise<ModelInfo>;
  unload(): Promise<void>;
  countTokens(texts: readonly string[], signal?: AbortSignal): Promise<readonly number[]>;
  sync(
    prompt: Prompt,
    /**
     * `repository`: its name, if what is read of it may be kept on this machine's disk, and found under this name alone.
     * `session`: one of those that generate together, which stay until they have or until the main session reads; "out-of-memory"
     * with the subject "sessions" says that there is no room for one more.
     */
    options?: {
      onProgress?: (progress: SyncProgress) => void;
      signal?: AbortSignal;
      repository?: string;
      session?: number;
    },
  ): Promise<SyncDone>;
  generate(
    /** `promptLookup` (default true) changes the speed and no token. */
    request: { maxTokens: number; sampler: SamplerOptions; promptLookup?: boolean },
    options: { onTokens: (batch: TokenBatch) => void; signal?: AbortSignal },
  ): Promise<GenerateDone>;
  /**
   * Each pass over the weights serves all members, and each gets the tokens that it would get alone. A member's own signal ends
   * that one, with the reason "cancelled". A failure is of the whole batch. Results in the order of the members.
   */
  generateTogether(
    members: readonly (BatchMember & { readonly signal?: AbortSignal })[],
    options: { onTokens: (session: number, batch: TokenBatch) => void; signal?: AbortSignal },
  ): Promise<readonly GenerateDone[]>;
  tokenize(texts: readonly string[], special: boolean): Promise<readonly (readonly number[])[]>;
  detokenize(ids: readonly (readonly number[])[]): Promise<readonly string[]>;
  logits(ids: readonly number[], split: readonly number[]): Promise<LogitsDone>;
  /** Ends the process. The port can be used again afterwards. */
  stop(): Promise<void>;
}
