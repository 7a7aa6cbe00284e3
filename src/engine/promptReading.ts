// Owns: reading a prompt into a session from the longest state that is kept, in steps after which one is kept.
// Must never fail because a state cannot be kept or restored: then more is read (house invariant 8).
import type { ModelInfo, SyncDone } from "../protocol/engine";
import { failure, RingsideFailure } from "../protocol/errors";
import type { NativeModel } from "./addonTypes";
import type { HeldSession } from "./heldSession";
import { unwrap } from "./promptTokens";
import { boundaryAt, chunkTokens, keyAt, prefixKeys } from "./snapshotKeys";
import type { SnapshotModel } from "./snapshotFile";
import { Snapshots } from "./snapshots";
import type { SnapshotStore } from "./snapshotStore";
import { SnapshotWriter } from "./snapshotWriter";
import type { Line } from "./snapshotWriter";
import { stopsOf, tokensBetweenStops } from "./stops";
import type { PromptEnds } from "./stops";

/** Fewer tokens are read again as soon as their state has come from a disk. */
const leastRestoredTokens = 256;

/** A prompt as tokens, and whose it is. */
export interface TokenPrompt {
  readonly tokens: Int32Array;
  readonly ends: PromptEnds;
  /** "": its states stay in memory. */
  readonly repository: string;
  /** The next question begins as this one does, so the end of its base with the deltas is kept whatever is read meanwhile. */
  readonly isConversation: boolean;
}

export interface ReadingSteps {
  /** Runs one native call of the session, and throws when the reading is not wanted any more. */
  readonly run: <T>(start: () => Promise<T>) => Promise<T>;
  /** Called once, with how many tokens need not be read; what it returns is told how far the session is. */
  readonly begin: (reusedTokens: number) => (position: number) => void;
}

export class PromptReading {
  readonly #model: NativeModel;
  readonly #snapshots: Snapshots;
  readonly #betweenStops: number;
  /** null: states of this model are kept in memory only. */
  readonly #disk: {
    readonly model: SnapshotModel;
    readonly store: SnapshotStore;
    readonly writer: SnapshotWriter;
  } | null;

  constructor(
    model: NativeModel,
    info: ModelInfo,
    limitBytes: number,
    disk: { readonly model: SnapshotModel; readonly store: SnapshotStore } | null,
  ) {
    this.#model = model;
    this.#snapshots = new Snapshots(limitBytes, info);
    this.#betweenStops = tokensBetweenStops(info.contextTokens, info.stateBytes, limitBytes);
    this.#disk = disk === null ? null : { ...disk, writer: new SnapshotWriter(disk.store, disk.model) };
  }

  /** Resolves when the states that go to the disk are there. */
  async written(): Promise<void> {
    await this.#disk?.writer.written();
  }

  async close(): Promise<void> {
    await this.#disk?.writer.stop();
    this.#snapshots.clear();
  }

  async read(session: HeldSession, prompt: TokenPrompt, steps: ReadingSteps): Promise<SyncDone> {
    const startedMs = performance.now();
    const { tokens, ends, repository, isConversation } = prompt;
    const baseTokens = ends.base.at(-1) ?? 0;
    const identity = this.#disk?.model.identity ?? "";
    const line: Line = { tokens, keys: prefixKeys(`${identity}\n${repository}`, tokens), label: repository };
    if (isConversation) this.#snapshots.protect(keyAt(line.keys, boundaryAt(ends.deltas.at(-1) ?? baseTokens)));
    const kept = await this.#longestKept(session, line, repository !== "");
    const advanced = steps.begin(kept);
    let reusedTokens: number | null = null;
    for (const stop of stopsOf(ends, this.#betweenStops)) {
      const isEnd = stop === tokens.length;
      // Reading to a stop that lies behind would throw away what the session holds.
      if (!isEnd && (boundaryAt(stop) <= kept || this.#snapshots.has(keyAt(line.keys, boundaryAt(stop)) ?? "")))
        continue;
      const reused = await this.#readTo(session, tokens.subarray(0, stop), line.keys, steps, advanced);
      reusedTokens ??= reused;
      this.#keepState(session, line, repository !== "");
    }
    const reused = reusedTokens ?? 0;
    return {
      promptTokens: tokens.length,
      reusedTokens: reused,
      baseTokens,
      baseTokensRead: Math.max(0, baseTokens - reused),
      milliseconds: performance.now() - startedMs,
    };
  }

  /** How many of the tokens need not be read; what only a disk has comes to memory for it. */
  async #longestKept(session: HeldSession, line: Line, fromDisk: boolean): Promise<number> {
    const inMemory = this.#snapshots.use(line.keys)?.boundary ?? 0;
    const kept = Math.max(session.common(line.tokens), inMemory);
    if (!fromDisk || this.#disk === null) return kept;
    return Math.max(kept, await this.#restore(this.#disk, line, kept + leastRestoredTokens));
  }

  /** The longest state on the disk of at least so many tokens; 0: none. One that is damaged is gone, so the next shorter is tried. */
  async #restore(
    { store, model }: { readonly store: SnapshotStore; readonly model: SnapshotModel },
    { keys }: Line,
    leastTokens: number,
  ): Promise<number> {
    for (let index = keys.length - 1; (index + 1) * chunkTokens >= leastTokens; index -= 1) {
      const key = keys[index] ?? "";
      if (!store.has(key)) continue;
      const whole = await store.get(model, key);
      if (whole === null) continue;
      const snapshot = this.#model.importSnapshot(whole.tokens, whole.state, whole.pages);
      if (!snapshot.ok) {
        if (snapshot.error.kind !== "out-of-memory") await store.forget(key);
        continue;
      }
      this.#snapshots.keep(keys, snapshot.value);
      return whole.tokens.length;
    }
    return 0;
  }

  async #readTo(
    session: HeldSession,
    tokens: Int32Array,
    keys: readonly string[],
    steps: ReadingSteps,
    advanced: (position: number) => void,
  ): Promise<number> {
    const best = this.#snapshots.longest(keys.slice(0, Math.floor((tokens.length - 1) / chunkTokens)));
    const result = await steps.run(() => session.sync(tokens, best === null ? [] : [best.snapshot], advanced));
    return unwrap(result).reused;
  }

  /** A state too many for the memory is one less that is kept, not a failure. */
  #keepState(session: HeldSession, line: Line, onDisk: boolean): void {
    const taken = session.native.snapshot();
    if (!taken.ok) {
      if (taken.error.kind === "out-of-memory") return;
      throw new RingsideFailure(taken.error);
    }
    const snapshot = taken.value;
    if (snapshot.position() === 0) {
      snapshot.close();
      return;
    }
    // First to the disk: a memory without room for it closes it.
    if (onDisk) this.#disk?.writer.add(line, snapshot);
    this.#snapshots.keep(line.keys, snapshot);
  }
}

/** Throws when the prompt is empty or does not fit the model's window. */
export function checkLength(tokens: Int32Array, contextTokens: number): void {
  if (tokens.length === 0) throw failure("argument-invalid", "prompt", "at least 1 token", "0");
  if (tokens.length > contextTokens)
    throw failure("context-full", "prompt", `at most ${String(contextTokens)} tokens`, String(tokens.length));
}
