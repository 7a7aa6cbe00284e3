// Owns: inside the engine host, the loaded model with its one session and the states that are kept: what each request does with them.
// Must never speak to the outside: host.ts carries requests in and replies out. One of load, logits, sync and generate
// runs at a time (host.ts sees to it).
import { totalmem } from "node:os";
import type {
  EngineReply,
  GenerateDone,
  LoadRequest,
  LogitsDone,
  ModelInfo,
  Prompt,
  SyncDone,
} from "../protocol/engine";
import { failure, RingsideFailure } from "../protocol/errors";
import type { NativeAddon, NativeGenerateOptions, NativeModel, NativeSession } from "./addonTypes";
import { logSoftmaxRows } from "./logits";
import { Pacer, PromptTokens, unwrap } from "./promptTokens";
import { identityOf } from "./modelIdentity";
import { boundaryAt, chunkTokens, keyAt, prefixKeys } from "./snapshotKeys";
import type { SnapshotModel } from "./snapshotFile";
import { Snapshots } from "./snapshots";
import type { SnapshotStore } from "./snapshotStore";
import { SnapshotWriter } from "./snapshotWriter";
import type { Line } from "./snapshotWriter";
import { stopsOf, tokensBetweenStops } from "./stops";

const progressMs = 100;
const snapshotShareOfMemory = 1 / 8;
/** Fewer tokens are read again as soon as their state has come from a disk. */
const leastRestoredTokens = 256;

/** One request's link to the outside: its interim replies, and whether it is still wanted. */
export interface Call {
  readonly id: number;
  cancelled: boolean;
  readonly reply: (reply: EngineReply) => void;
}

interface Loaded {
  readonly model: NativeModel;
  readonly info: ModelInfo & { readonly stopTokens: readonly number[] };
  readonly session: NativeSession;
  readonly tokens: PromptTokens;
  readonly snapshots: Snapshots;
  readonly betweenStops: number;
  /** null: states of this model are kept in memory only. */
  readonly disk: { readonly model: SnapshotModel; readonly writer: SnapshotWriter } | null;
  /** What the session holds, as far as is known. */
  held: Int32Array;
}

export interface SessionOptions {
  readonly openAddon: () => NativeAddon;
  readonly addonPath: string;
  /** null: nothing is kept on a disk. */
  readonly store: Promise<SnapshotStore> | null;
}

export class ModelSession {
  readonly #options: SessionOptions;
  #loaded: Loaded | null = null;
  /** The native session at work now, so that a cancel reaches it. */
  #running: NativeSession | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Stops the native call that runs now, if one does. */
  interrupt(): void {
    this.#running?.cancel();
  }

  async load(request: LoadRequest, call: Call): Promise<ModelInfo> {
    const addon = this.#options.openAddon();
    // The old model goes first: two may not fit.
    await this.unload();
    let lastFraction = -1;
    const result = await addon.loadModel({ ...request }, (fraction) => {
      if (fraction - lastFraction < 0.01 && fraction < 1) return;
      lastFraction = fraction;
      call.reply({ type: "progress", id: call.id, fraction: Math.min(1, Math.max(0, fraction)) });
    });
    const model = unwrap(result);
    const info = model.info();
    const session = model.openSession();
    if (!session.ok) model.close();
    const limitBytes = limitOfStates(info);
    this.#loaded = {
      model,
      info,
      session: unwrap(session),
      tokens: new PromptTokens(model),
      snapshots: new Snapshots(limitBytes, info),
      betweenStops: tokensBetweenStops(info.contextTokens, info.stateBytes, limitBytes),
      disk: await this.#diskFor(request, info, model),
      held: new Int32Array(0),
    };
    const { stopTokens: _, ...told } = info;
    return told;
  }

  /** Resolves when the states that go to the disk are there. */
  async written(): Promise<void> {
    await this.#loaded?.disk?.writer.written();
  }

  async unload(): Promise<void> {
    const loaded = this.#loaded;
    if (loaded === null) return;
    this.#loaded = null;
    await loaded.disk?.writer.stop();
    loaded.snapshots.clear();
    loaded.session.close();
    loaded.model.close();
  }

  /** null where states of this model cannot go to a disk, or must not. */
  async #diskFor(request: LoadRequest, info: ModelInfo, native: NativeModel): Promise<Loaded["disk"]> {
    const store = await this.#options.store;
    const { stateBytes, pageBytes } = native.snapshotParts();
    if (store === null || stateBytes + pageBytes === 0) return null;
    // A model whose files cannot be read now was changed under us; then nothing is known of it.
    const identity = await identityOf(request, info, this.#options.addonPath).catch(() => null);
    if (identity === null) return null;
    const model = { identity, stateBytes, pageBytes, contextTokens: info.contextTokens };
    return { model, writer: new SnapshotWriter(store, model) };
  }

  async count(texts: readonly string[], call: Call): Promise<number[]> {
    const { tokens } = this.#model();
    return eachText(texts, call, (text) => tokens.encodeText(text).length);
  }

  async tokenize(texts: readonly string[], special: boolean, call: Call): Promise<number[][]> {
    const { tokens, model } = this.#model();
    return eachText(texts, call, (text) =>
      Array.from(special ? unwrap(model.encodeWithAdded(text)) : tokens.encodeText(text)),
    );
  }

  async detokenize(ids: readonly (readonly number[])[], call: Call): Promise<string[]> {
    const { model } = this.#model();
    return eachText(ids, call, (list) => unwrap(model.decode(Int32Array.from(list))));
  }

  /** A session of its own, so that the kept one is not disturbed. */
  async logits(ids: readonly number[], split: readonly number[], call: Call): Promise<LogitsDone> {
    const { model, info } = this.#model();
    const session = unwrap(model.openSession());
    try {
      const { argmax, logprobs, last } = await logSoftmaxRows(
        ids,
        split,
        info.vocabRows,
        pacerFor(call),
        async (piece) => unwrap(await this.#native(session, call, () => session.logits(piece))),
      );
      const norms = Array.from(unwrap(session.stateNorms()));
      const stateNorms = Array.from({ length: info.linearLayers }, (_, layer) =>
        norms.slice(layer * info.heads, (layer + 1) * info.heads),
      );
      return { argmax, logprobs, last, stateNorms };
    } finally {
      session.close();
    }
  }

  /** Reads from the longest state that is kept, in steps after which one is kept. `repository`: whose they are; "": memory only. */
  async sync(prompt: Prompt, repository: string, call: Call): Promise<SyncDone> {
    const startedMs = performance.now();
    const loaded = this.#model();
    const { tokens, ends } = await loaded.tokens.encode(prompt, pacerFor(call));
    if (tokens.length === 0) throw failure("argument-invalid", "prompt", "at least 1 token", "0");
    const limit = loaded.info.contextTokens;
    if (tokens.length > limit)
      throw failure("context-full", "prompt", `at most ${String(limit)} tokens`, String(tokens.length));

    const baseTokens = ends[prompt.basePieces - 1] ?? 0;
    const identity = loaded.disk?.model.identity ?? "";
    const line: Line = { tokens, keys: prefixKeys(`${identity}\n${repository}`, tokens), label: repository };
    const kept = await this.#longestKept(loaded, line, repository !== "");
    const stops = stopsOf(ends.slice(0, prompt.basePieces), baseTokens, tokens.length, loaded.betweenStops);
    const advanced = progressOf(tokens.length, kept, call);
    let reusedTokens: number | null = null;
    for (const stop of stops) {
      const isEnd = stop === tokens.length;
      // Reading to a stop that lies behind would throw away what the session holds.
      if (!isEnd && (boundaryAt(stop) <= kept || loaded.snapshots.has(keyAt(line.keys, boundaryAt(stop)) ?? "")))
        continue;
      const reused = await this.#read(loaded, tokens.subarray(0, stop), line.keys, call, advanced);
      reusedTokens ??= reused;
      this.#keepState(loaded, line, repository !== "");
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

  async generate(request: Omit<NativeGenerateOptions, "stopTokens">, call: Call): Promise<GenerateDone> {
    const { maxTokens, sampler, promptLookup } = request;
    const { session, info } = this.#model();
    const startedMs = performance.now();
    const first: { atMs?: number } = {};
    const ids: number[] = [];
    const result = await this.#native(session, call, () =>
      session.generate({ maxTokens, sampler, stopTokens: info.stopTokens, promptLookup }, (batch, text) => {
        first.atMs ??= performance.now() - startedMs;
        ids.push(...batch);
        call.reply({ type: "tokens", id: call.id, batch: { ids: Array.from(batch), text } });
      }),
    );
    this.#remember(ids);
    const generated = unwrap(result);
    if (generated.reason === "cancelled") throw failure("cancelled");
    const milliseconds = performance.now() - startedMs;
    return { ...generated, milliseconds, firstTokenMs: first.atMs ?? milliseconds };
  }

  /** How many of the tokens need not be read; what only a disk has comes to memory for it. */
  async #longestKept(loaded: Loaded, line: Line, fromDisk: boolean): Promise<number> {
    const own = ownTokens(loaded, line.tokens);
    const inMemory = loaded.snapshots.longest(line.keys)?.boundary ?? 0;
    const kept = Math.max(own, inMemory);
    if (!fromDisk || loaded.disk === null) return kept;
    return Math.max(kept, await this.#restore(loaded, line, kept + leastRestoredTokens));
  }

  /** The longest state on the disk of at least so many tokens; 0: none. One that is damaged is gone, so the next shorter is tried. */
  async #restore(loaded: Loaded, { keys }: Line, leastTokens: number): Promise<number> {
    const store = await this.#options.store;
    if (store === null || loaded.disk === null) return 0;
    for (let index = keys.length - 1; (index + 1) * chunkTokens >= leastTokens; index -= 1) {
      const key = keys[index] ?? "";
      if (!store.has(key)) continue;
      const whole = await store.get(loaded.disk.model, key);
      if (whole === null) continue;
      const snapshot = loaded.model.importSnapshot(whole.tokens, whole.state, whole.pages);
      if (!snapshot.ok) {
        if (snapshot.error.kind !== "out-of-memory") await store.forget(key);
        continue;
      }
      loaded.snapshots.keep(keys, snapshot.value);
      return whole.tokens.length;
    }
    return 0;
  }

  /** A state too many for the memory is one less that is kept, not a failure. */
  #keepState(loaded: Loaded, line: Line, onDisk: boolean): void {
    const taken = loaded.session.snapshot();
    if (!taken.ok) {
      if (taken.error.kind === "out-of-memory") return;
      throw new RingsideFailure(taken.error);
    }
    const snapshot = taken.value;
    if (snapshot.position() === 0) {
      snapshot.close();
      return;
    }
    loaded.snapshots.keep(line.keys, snapshot);
    if (onDisk) loaded.disk?.writer.add(line, snapshot);
  }

  async #read(
    loaded: Loaded,
    tokens: Int32Array,
    keys: readonly string[],
    call: Call,
    advanced: (position: number) => void,
  ): Promise<number> {
    const best = loaded.snapshots.longest(keys.slice(0, Math.floor((tokens.length - 1) / chunkTokens)));
    const result = await this.#native(loaded.session, call, () =>
      loaded.session.sync(tokens, best === null ? [] : [best.snapshot], advanced),
    );
    loaded.held = tokens.slice(0, loaded.session.position());
    return unwrap(result).reused;
  }

  async #native<T>(session: NativeSession, call: Call, start: () => Promise<T>): Promise<T> {
    if (call.cancelled) throw failure("cancelled");
    this.#running = session;
    try {
      return await start();
    } finally {
      this.#running = null;
    }
  }

  #remember(generated: readonly number[]): void {
    const loaded = this.#loaded;
    if (loaded === null) return;
    const held = new Int32Array(loaded.held.length + generated.length);
    held.set(loaded.held);
    held.set(generated, loaded.held.length);
    loaded.held = held.subarray(0, loaded.session.position());
  }

  #model(): Loaded {
    if (this.#loaded === null) throw failure("model-not-loaded");
    return this.#loaded;
  }
}

function pacerFor(call: Call): Pacer {
  return new Pacer(() => {
    if (call.cancelled) throw failure("cancelled");
  });
}

async function eachText<T, R>(items: readonly T[], call: Call, work: (item: T) => R): Promise<R[]> {
  const pacer = pacerFor(call);
  const results: R[] = [];
  for (const item of items) {
    results.push(work(item));
    await pacer.pause();
  }
  return results;
}

/** How far the session itself has read these tokens: it can go back to the start of its open chunk and no further. */
function ownTokens({ session, held }: Loaded, tokens: Int32Array): number {
  if (session.position() !== held.length) return 0;
  const differs = held.findIndex((token, index) => token !== tokens[index]);
  const common = differs < 0 ? held.length : differs;
  return common >= boundaryAt(held.length) ? common : 0;
}

/** The rest of the memory is for the model; on a GPU its own plan has room for a state or two (native/cuda/memory_plan.h). */
function limitOfStates({ backend, stateBytes, kvBytesPerToken, contextTokens }: ModelInfo): number {
  if (backend === "cuda") return 2 * stateBytes + kvBytesPerToken * contextTokens;
  return totalmem() * snapshotShareOfMemory;
}

/** Sends a first progress at once, so that the size of the work is known, then one at most every 100 ms. */
function progressOf(promptTokens: number, reusedTokens: number, call: Call): (position: number) => void {
  const startedMs = performance.now();
  let toldMs = startedMs;
  const tell = (position: number, nowMs: number): void => {
    const seconds = (nowMs - startedMs) / 1_000;
    const tokensPerSecond = seconds > 0 ? Math.max(0, position - reusedTokens) / seconds : 0;
    toldMs = nowMs;
    call.reply({
      type: "syncProgress",
      id: call.id,
      progress: { position, promptTokens, reusedTokens, tokensPerSecond },
    });
  };
  tell(reusedTokens, startedMs);
  return (position) => {
    const nowMs = performance.now();
    if (nowMs - toldMs >= progressMs) tell(position, nowMs);
  };
}
