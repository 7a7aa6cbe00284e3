// The one description of what the native addon exports (native/binding/addon.cc). Nothing here throws: each failure is a value.
import type { RingsideError } from "../protocol/errors";
import type { ModelInfo, SamplerOptions, StopReason } from "../protocol/engine";

export type NativeResult<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: RingsideError };

export interface NativeAddon {
  /** Loads on a worker thread. onProgress gets 0..1. */
  loadModel(
    options: Readonly<Record<"folder" | "backend" | "slopeForm" | "isa" | "kvFormat", string>> & {
      readonly threads: number;
      /** These two are LoadRequest's, and its "none" when they are absent. */
      readonly deviceMemoryBytes?: number;
      readonly device?: number;
    },
    onProgress: (fraction: number) => void,
  ): Promise<NativeResult<NativeModel>>;
  /**
   * Several sessions of one model in the same passes over its weights; each gets exactly the tokens it would get alone.
   * Each of them is at work meanwhile: cancel() stops that one. Results in the order of the sessions.
   */
  generateTogether(
    sessions: readonly NativeSession[],
    options: readonly NativeGenerateOptions[],
    onTokens: (session: number, ids: Int32Array, text: string) => void,
  ): Promise<NativeResult<readonly NativeGenerated[]>>;
}

export interface NativeGenerateOptions {
  readonly maxTokens: number;
  readonly sampler: SamplerOptions;
  readonly stopTokens: readonly number[];
  readonly promptLookup: boolean;
}

export interface NativeGenerated {
  readonly reason: StopReason;
  readonly tokens: number;
  /** By prompt lookup. */
  readonly drafted: number;
  readonly accepted: number;
}

export interface NativeModel {
  info(): ModelInfo & { readonly stopTokens: readonly number[] };
  /** Plain characters, added tokens off. */
  encode(text: string): NativeResult<Int32Array>;
  /** Added tokens recognised; for `ringside tokenize --special`. */
  encodeWithAdded(text: string): NativeResult<Int32Array>;
  /** -1: this model has no such added token. */
  addedId(content: string): number;
  decode(ids: Int32Array): NativeResult<string>;
  openSession(): NativeResult<NativeSession>;
  /** How long the parts of a snapshot's bytes are; both 0: this backend has none. */
  snapshotParts(): SnapshotParts;
  /**
   * A snapshot from its bytes; `pages`: runs of whole pages in their order. They must come from a model that was loaded from the
   * same checkpoint in the same way on the same build and kind of machine.
   */
  importSnapshot(tokens: Int32Array, state: Uint8Array, pages: readonly Uint8Array[]): NativeResult<NativeSnapshot>;
  /** Frees the weights once the sessions and snapshots are closed too. Further calls give "state-invalid". */
  close(): void;
}

/** One call runs at a time; another gives "state-invalid". */
export interface NativeSession {
  position(): number;
  bytes(): number;
  /** See Session::sync in native/engine.h. */
  sync(
    tokens: Int32Array,
    snapshots: readonly NativeSnapshot[],
    onAdvanced: (position: number) => void,
  ): Promise<NativeResult<{ readonly reused: number }>>;
  snapshot(): NativeResult<NativeSnapshot>;
  /** onTokens gets batches at most 30 ms apart; `text` is complete UTF-8. */
  generate(
    options: NativeGenerateOptions,
    onTokens: (ids: Int32Array, text: string) => void,
  ): Promise<NativeResult<NativeGenerated>>;
  /** Feeds tokens; logits are [tokens, vocabRows]. */
  logits(tokens: Int32Array): Promise<NativeResult<Float32Array>>;
  stateNorms(): NativeResult<Float32Array>;
  /** Stops the running call within 100 ms; it then ends with "cancelled". Safe at any time. */
  cancel(): void;
  close(): void;
}

export interface NativeSnapshot {
  position(): number;
  bytes(): number;
  /** The pages from this one on, and the state. Also while a call runs. */
  exportParts(firstPage: number): NativeResult<{ readonly state: Uint8Array; readonly pages: Uint8Array }>;
  close(): void;
}

export interface SnapshotParts {
  readonly stateBytes: number;
  /** Of 256 positions. */
  readonly pageBytes: number;
}
