// Owns: inside the engine host, the loaded model with its one session: what each request does with them.
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
import { failure } from "../protocol/errors";
import type { NativeAddon, NativeGenerateOptions, NativeModel, NativeSession } from "./addonTypes";
import { logSoftmaxRows } from "./logits";
import { Pacer, PromptTokens, unwrap } from "./promptTokens";
import { chunkTokens, equal, Snapshots } from "./snapshots";

const progressMs = 100;
const snapshotShareOfMemory = 1 / 8;

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
  /** What the session holds, as far as is known: only to estimate how much a sync will reuse. */
  held: Int32Array;
}

export class ModelSession {
  readonly #openAddon: () => NativeAddon;
  #loaded: Loaded | null = null;
  /** The native session at work now, so that a cancel reaches it. */
  #running: NativeSession | null = null;

  constructor(openAddon: () => NativeAddon) {
    this.#openAddon = openAddon;
  }

  /** Stops the native call that runs now, if one does. */
  interrupt(): void {
    this.#running?.cancel();
  }

  async load(request: LoadRequest, call: Call): Promise<ModelInfo> {
    const addon = this.#openAddon();
    // The old model goes first: two may not fit.
    this.unload();
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
    this.#loaded = {
      model,
      info,
      session: unwrap(session),
      tokens: new PromptTokens(model),
      snapshots: new Snapshots(totalmem() * snapshotShareOfMemory),
      held: new Int32Array(0),
    };
    const { stopTokens: _, ...told } = info;
    return told;
  }

  unload(): void {
    const loaded = this.#loaded;
    if (loaded === null) return;
    this.#loaded = null;
    loaded.snapshots.clear();
    loaded.session.close();
    loaded.model.close();
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

  /** Reads the base to its end first, so that one snapshot can be kept there, then the rest. */
  async sync(prompt: Prompt, call: Call): Promise<SyncDone> {
    const startedMs = performance.now();
    const loaded = this.#model();
    const { tokens, baseTokens } = await loaded.tokens.encode(prompt, pacerFor(call));
    if (tokens.length === 0) throw failure("argument-invalid", "prompt", "at least 1 token", "0");
    const limit = loaded.info.contextTokens;
    if (tokens.length > limit)
      throw failure("context-full", "prompt", `at most ${String(limit)} tokens`, String(tokens.length));

    const base = tokens.slice(0, baseTokens);
    const advanced = progressOf(tokens.length, estimateReuse(loaded, tokens), call);
    let reused: number | null = null;
    if (baseTokens >= chunkTokens && !loaded.snapshots.has(base)) {
      reused = await this.#read(loaded, base, call, advanced);
      loaded.snapshots.keep(base, unwrap(loaded.session.snapshot()));
    }
    const reusedByRest = await this.#read(loaded, tokens, call, advanced);
    const reusedTokens = reused ?? reusedByRest;
    return {
      promptTokens: tokens.length,
      reusedTokens,
      baseTokens,
      baseTokensRead: Math.max(0, baseTokens - reusedTokens),
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

  async #read(loaded: Loaded, tokens: Int32Array, call: Call, advanced: (position: number) => void): Promise<number> {
    const result = await this.#native(loaded.session, call, () =>
      loaded.session.sync(tokens, loaded.snapshots.all(), advanced),
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

function estimateReuse({ session, held, snapshots }: Loaded, tokens: Int32Array): number {
  const keeps = session.position() === held.length && equal(held, tokens.subarray(0, held.length));
  return Math.max(keeps ? held.length : 0, snapshots.reusable(tokens));
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
