// Owns: inside the engine host, the loaded model with its sessions: what each request does with them.
// Must never speak to the outside: host.ts carries requests in and replies out. One of load, logits, sync, generate and
// generateTogether runs at a time (host.ts sees to it).
import { totalmem } from "node:os";
import { mainSession } from "../protocol/engine";
import type {
  BatchMember,
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
import { BatchSessions } from "./batchSessions";
import { HeldSession } from "./heldSession";
import { logSoftmaxRows } from "./logits";
import { identityOf } from "./modelIdentity";
import { checkLength, PromptReading } from "./promptReading";
import { Pacer, PromptTokens, unwrap } from "./promptTokens";
import type { SnapshotModel } from "./snapshotFile";
import type { SnapshotStore } from "./snapshotStore";
import { endsOf } from "./stops";

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
  readonly tokens: PromptTokens;
  readonly reading: PromptReading;
  /** The session of the conversation. */
  readonly main: HeldSession;
  readonly batch: BatchSessions;
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
  /** The native sessions at work now by their numbers, so that a cancel reaches them. */
  #running: ReadonlyMap<number, NativeSession> = new Map();

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Stops the native call that runs now, if one does; of a batch, only that session. */
  interrupt(session: number = mainSession): void {
    for (const [number, running] of this.#running) if (session === mainSession || session === number) running.cancel();
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
    const main = openOrClose(model);
    const limitBytes = limitOfStates(info);
    this.#loaded = {
      model,
      info,
      tokens: new PromptTokens(model),
      reading: new PromptReading(model, info, limitBytes, await this.#diskFor(request, info, model)),
      main,
      batch: new BatchSessions(model, info, limitBytes),
    };
    const { stopTokens: _, ...told } = info;
    return told;
  }

  /** Resolves when the states that go to the disk are there. */
  async written(): Promise<void> {
    await this.#loaded?.reading.written();
  }

  async unload(): Promise<void> {
    const loaded = this.#loaded;
    if (loaded === null) return;
    this.#loaded = null;
    await loaded.reading.close();
    loaded.batch.close();
    loaded.main.close();
    loaded.model.close();
  }

  /** null where states of this model cannot go to a disk, or must not. */
  async #diskFor(
    request: LoadRequest,
    info: ModelInfo,
    native: NativeModel,
  ): Promise<{ readonly model: SnapshotModel; readonly store: SnapshotStore } | null> {
    const store = await this.#options.store;
    const { stateBytes, pageBytes } = native.snapshotParts();
    if (store === null || stateBytes + pageBytes === 0) return null;
    // A model whose files cannot be read now was changed under us; then nothing is known of it.
    const identity = await identityOf(request, info, this.#options.addonPath).catch(() => null);
    if (identity === null) return null;
    return { store, model: { identity, stateBytes, pageBytes, contextTokens: info.contextTokens } };
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
    const running = new Map([[mainSession, session]]);
    try {
      const { argmax, logprobs, last } = await logSoftmaxRows(
        ids,
        split,
        info.vocabRows,
        pacerFor(call),
        async (piece) => unwrap(await this.#native(running, call, () => session.logits(piece))),
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

  /** `repository`: whose states they are; "": they stay in memory. */
  async sync(prompt: Prompt, repository: string, session: number, call: Call): Promise<SyncDone> {
    const { tokens: encoder, info, main, batch, reading } = this.#model();
    const { tokens, ends } = await encoder.encode(prompt, pacerFor(call));
    checkLength(tokens, info.contextTokens);
    if (session === mainSession) batch.close();
    const held = session === mainSession ? main : batch.open(session, tokens.length);
    const running = new Map([[session, held.native]]);
    return reading.read(
      held,
      { tokens, ends: endsOf(prompt, ends), repository, isConversation: session === mainSession },
      {
        run: (start) => this.#native(running, call, start),
        begin: (reusedTokens) => progressOf(tokens.length, reusedTokens, call),
      },
    );
  }

  async generate(request: Omit<NativeGenerateOptions, "stopTokens">, call: Call): Promise<GenerateDone> {
    const { maxTokens, sampler, promptLookup } = request;
    const { main, info } = this.#model();
    const told = new ToldTokens(mainSession, call);
    const options = { maxTokens, sampler, stopTokens: info.stopTokens, promptLookup };
    const result = await this.#native(new Map([[mainSession, main.native]]), call, () =>
      main.native.generate(options, (ids, text) => {
        told.add(ids, text);
      }),
    );
    main.remember(told.ids);
    const generated = unwrap(result);
    if (generated.reason === "cancelled") throw failure("cancelled");
    return { ...generated, ...told.times() };
  }

  /** Ends the sessions: the answers are what was wanted of them. */
  async generateTogether(members: readonly BatchMember[], call: Call): Promise<GenerateDone[]> {
    const { batch, info } = this.#model();
    const sessions = members.map(({ session }) => batch.get(session).native);
    const told = members.map(({ session }) => new ToldTokens(session, call));
    const options = members.map(({ maxTokens, sampler, promptLookup }) => ({
      maxTokens,
      sampler,
      stopTokens: info.stopTokens,
      promptLookup,
    }));
    const running = new Map(members.map(({ session }) => [session, batch.get(session).native]));
    try {
      const result = await this.#native(running, call, () =>
        this.#options.openAddon().generateTogether(sessions, options, (index, ids, text) => {
          told[index]?.add(ids, text);
        }),
      );
      const generated = unwrap(result);
      if (call.cancelled) throw failure("cancelled");
      return generated.map((done, index) => ({ ...done, ...(told[index] as ToldTokens).times() }));
    } finally {
      batch.close();
    }
  }

  async #native<T>(running: ReadonlyMap<number, NativeSession>, call: Call, start: () => Promise<T>): Promise<T> {
    if (call.cancelled) throw failure("cancelled");
    this.#running = running;
    try {
      return await start();
    } finally {
      this.#running = new Map();
    }
  }

  #model(): Loaded {
    if (this.#loaded === null) throw failure("model-not-loaded");
    return this.#loaded;
  }
}

/** What a session generated in one call, told as it comes, and when. */
class ToldTokens {
  readonly ids: number[] = [];
  readonly #startedMs = performance.now();
  #firstMs: number | null = null;

  constructor(
    private readonly session: number,
    private readonly call: Call,
  ) {}

  add(ids: Int32Array, text: string): void {
    this.#firstMs ??= performance.now() - this.#startedMs;
    this.ids.push(...ids);
    const { id, reply } = this.call;
    reply({ type: "tokens", id, session: this.session, batch: { ids: Array.from(ids), text } });
  }

  times(): Pick<GenerateDone, "milliseconds" | "firstTokenMs"> {
    const milliseconds = performance.now() - this.#startedMs;
    return { milliseconds, firstTokenMs: this.#firstMs ?? milliseconds };
  }
}

/** A model without a session is of no use. */
function openOrClose(model: NativeModel): HeldSession {
  try {
    return HeldSession.open(model);
  } catch (cause) {
    model.close();
    throw cause;
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
