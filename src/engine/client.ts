// Owns: the engine as the rooms above see it: loading the model when it is needed, one reading or generation at a time, cancelling,
// and the engine's state. Must never load native code itself, nor repeat a request that was lost with the process, unless it was
// the GPU that was lost: a fault of our own would only kill the next process too.
import { mainSession } from "../protocol/engine";
import type {
  BatchMember,
  EnginePort,
  EngineStatus,
  GenerateDone,
  LoadRequest,
  LogitsDone,
  ModelInfo,
  Prompt,
  SamplerOptions,
  SyncDone,
  SyncProgress,
  TokenBatch,
} from "../protocol/engine";
import { failure, RingsideFailure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import { maxTextsPerRequest } from "../protocol/validate";
import type { Connection, InterimReply, Job, ResultOf } from "./connection";
import { DeviceLosses, maxDeviceLosses } from "./deviceLosses";
import { Supervisor } from "./supervisor";
import type { EngineProcessOptions } from "./supervisor";

/** A character takes at most six bytes of JSON, so a batch of texts stays under a frame's limit. */
const maxBatchCharacters = 1_000_000;
/** A host that has not confirmed a cancel by then hangs, and is ended. */
const cancelConfirmMs = 3_000;
/** Fewer tokens say nothing about a speed. */
const minMeasuredTokens = 64;

interface Read {
  readonly prompt: Prompt;
  readonly repository: string;
  readonly connection: Connection;
}

/** When a session of a batch is to end before the others. */
interface SessionStop {
  readonly session: number;
  readonly signal: AbortSignal | undefined;
}

interface Loading {
  readonly request: LoadRequest;
  readonly connection: Connection;
  readonly info: Promise<ModelInfo>;
  readonly listeners: Set<(fraction: number) => void>;
  waiters: number;
}

export { layoutsIn } from "./keptLayouts";
export { clearSnapshots, listSnapshots } from "./keptSnapshots";

export function createEngineClient(options: EngineProcessOptions): EnginePort {
  return new EngineClient(options);
}

class EngineClient implements EnginePort {
  readonly #supervisor: Supervisor;
  readonly #listeners = new Set<(status: EngineStatus) => void>();
  readonly #losses = new DeviceLosses();
  #status: EngineStatus = { state: "stopped", model: null, error: null, deviceLoss: null };
  /** The model that requests are meant for; loaded again after a restart. */
  #wanted: LoadRequest | null = null;
  #loaded: { readonly request: LoadRequest; readonly connection: Connection; readonly info: ModelInfo } | null = null;
  #loading: Loading | null = null;
  /** The last prompt that each session read, and by which process: another one has to read it before it can generate. */
  readonly #read = new Map<number, Read>();
  #busy = false;

  constructor(options: EngineProcessOptions) {
    this.#supervisor = new Supervisor(options, (error) => {
      this.#lost(error);
    });
  }

  status(): EngineStatus {
    return this.#status;
  }

  onStatus(listener: (status: EngineStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Asking for another model than before, or stop(), is a new beginning: it resets the limit on restarts. Asking for the same again does not. */
  async load(
    request: LoadRequest,
    options: { onProgress?: (fraction: number) => void; signal?: AbortSignal } = {},
  ): Promise<ModelInfo> {
    if (!sameLoad(request, this.#wanted)) {
      if (this.#busy) throw failure("engine-busy", "load");
      this.#wanted = request;
      this.#read.clear();
      this.#forgive();
      await this.#abandonLoading();
    }
    return this.#surviving(async () => (await this.#ready(request, options)).info);
  }

  async unload(): Promise<void> {
    if (this.#busy) throw failure("engine-busy", "unload");
    const connection = this.#loaded?.connection;
    this.#wanted = null;
    this.#loaded = null;
    this.#read.clear();
    await this.#abandonLoading();
    if (connection?.alive === true) await connection.request({ type: "unload" }).result;
    this.#publish({ state: "stopped", model: null, error: null });
  }

  async countTokens(texts: readonly string[], signal?: AbortSignal): Promise<readonly number[]> {
    const counts: number[] = [];
    for (const batch of batchesOf(texts)) {
      counts.push(...(await this.#call({ type: "count", texts: batch }, signal)).tokens);
    }
    return counts;
  }

  async tokenize(texts: readonly string[], special: boolean): Promise<readonly (readonly number[])[]> {
    const ids: (readonly number[])[] = [];
    for (const batch of batchesOf(texts)) {
      ids.push(...(await this.#call({ type: "tokenize", texts: batch, special })).ids);
    }
    return ids;
  }

  async detokenize(ids: readonly (readonly number[])[]): Promise<readonly string[]> {
    return (await this.#call({ type: "detokenize", ids })).texts;
  }

  async logits(ids: readonly number[], split: readonly number[]): Promise<LogitsDone> {
    return this.#alone(
      "reading",
      async (ready) => (await this.#call({ type: "logits", ids, split }, undefined, ready)).logits,
    );
  }

  async sync(
    prompt: Prompt,
    {
      onProgress,
      signal,
      repository = "",
      session = mainSession,
    }: {
      onProgress?: (progress: SyncProgress) => void;
      signal?: AbortSignal;
      repository?: string;
      session?: number;
    } = {},
  ): Promise<SyncDone> {
    return this.#alone("reading", async (ready) => {
      const { connection, result } = await this.#callOn(
        { type: "sync", prompt, repository, session },
        signal,
        ready,
        (reply) => {
          if (reply.type === "syncProgress") onProgress?.(reply.progress);
        },
      );
      const { sync } = result;
      // The host ends the sessions of a batch when the main one reads.
      if (session === mainSession) this.#read.clear();
      this.#read.set(session, { prompt, repository, connection });
      const readTokens = sync.promptTokens - sync.reusedTokens;
      if (readTokens >= minMeasuredTokens && sync.milliseconds > 0) {
        this.#publish({ prefillTokensPerSecond: (readTokens * 1_000) / sync.milliseconds });
      }
      return sync;
    });
  }

  async generate(
    { maxTokens, sampler, promptLookup = true }: { maxTokens: number; sampler: SamplerOptions; promptLookup?: boolean },
    { onTokens, signal }: { onTokens: (batch: TokenBatch) => void; signal?: AbortSignal },
  ): Promise<GenerateDone> {
    return this.#alone("generating", async (ready) => {
      let isTold = false;
      const job = { type: "generate", maxTokens, sampler, promptLookup } as const;
      const onReply = (reply: InterimReply): void => {
        if (reply.type !== "tokens") return;
        isTold = true;
        onTokens(reply.batch);
      };
      const mayRepeat = (): boolean => !isTold;
      const { generate } = (await this.#callOn(job, signal, ready, onReply, mayRepeat)).result;
      const decodeMs = generate.milliseconds - generate.firstTokenMs;
      if (generate.tokens > 1 && decodeMs > 0) {
        this.#publish({ decodeTokensPerSecond: ((generate.tokens - 1) * 1_000) / decodeMs });
      }
      return generate;
    });
  }

  async generateTogether(
    members: readonly (BatchMember & { readonly signal?: AbortSignal })[],
    { onTokens, signal }: { onTokens: (session: number, batch: TokenBatch) => void; signal?: AbortSignal },
  ): Promise<readonly GenerateDone[]> {
    return this.#alone("generating", async (ready) => {
      let isTold = false;
      const job = {
        type: "generateTogether",
        members: members.map(({ session, maxTokens, sampler, promptLookup }) => {
          return { session, maxTokens, sampler, promptLookup };
        }),
      } as const;
      const onReply = (reply: InterimReply): void => {
        if (reply.type !== "tokens") return;
        isTold = true;
        onTokens(reply.session, reply.batch);
      };
      const mayRepeat = (): boolean => !isTold;
      const stops = members.map((member) => ({ session: member.session, signal: member.signal }));
      try {
        return (await this.#callOn(job, signal, ready, onReply, mayRepeat, stops)).result.generate;
      } finally {
        for (const { session } of members) this.#read.delete(session);
      }
    });
  }

  async stop(): Promise<void> {
    this.#forgive();
    await this.#supervisor.stop();
    this.#loaded = null;
    this.#publish({ state: "stopped", model: null, error: null });
  }

  /** One reading or generation at a time; the engine shows `state` while it runs, once the model is there. */
  async #alone<T>(state: "reading" | "generating", run: (onReady: () => void) => Promise<T>): Promise<T> {
    if (this.#busy) throw failure("engine-busy", state);
    this.#busy = true;
    try {
      return await run(() => {
        this.#publish({ state });
      });
    } finally {
      this.#busy = false;
      if (this.#status.state === state) this.#publish({ state: "ready" });
    }
  }

  async #call<const J extends Job>(job: J, signal?: AbortSignal, onReady?: () => void): Promise<ResultOf<J>> {
    return (await this.#callOn(job, signal, onReady)).result;
  }

  /** Also tells which process did it. */
  async #callOn<const J extends Job>(
    job: J,
    signal?: AbortSignal,
    onReady?: () => void,
    onInterim?: (reply: InterimReply) => void,
    mayRepeat = (): boolean => true,
    stops: readonly SessionStop[] = [],
  ): Promise<{ readonly connection: Connection; readonly result: ResultOf<J> }> {
    return this.#surviving(async () => {
      const { connection } = await this.#ready(this.#wanted, signal === undefined ? {} : { signal });
      if (isAborted(signal)) throw failure("cancelled");
      onReady?.();
      for (const session of generatingIn(job)) await this.#readAgain(session, connection, signal);
      return { connection, result: await this.#perform(connection, job, signal, onInterim, stops) };
    }, mayRepeat);
  }

  /** In a process that has not read what this session is to go on from. */
  async #readAgain(session: number, connection: Connection, signal: AbortSignal | undefined): Promise<void> {
    const read = this.#read.get(session);
    if (read === undefined || read.connection === connection) return;
    const { prompt, repository } = read;
    await this.#perform(connection, { type: "sync", prompt, repository, session }, signal);
    this.#read.set(session, { prompt, repository, connection });
  }

  /** Does again what was lost with a device: on the same one, then, where that is allowed, on the processor. */
  async #surviving<T>(work: () => Promise<T>, mayRepeat = (): boolean => true): Promise<T> {
    for (let losses = 0; ; losses += 1) {
      try {
        return await work();
      } catch (cause) {
        const isLost = cause instanceof RingsideFailure && cause.error.kind === "device-lost";
        if (!isLost || losses >= maxDeviceLosses || !mayRepeat()) throw cause;
      }
    }
  }

  async #perform<const J extends Job>(
    connection: Connection,
    job: J,
    signal?: AbortSignal,
    onInterim?: (reply: InterimReply) => void,
    stops: readonly SessionStop[] = [],
  ): Promise<ResultOf<J>> {
    const { id, result } = connection.request(job, onInterim);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const cancel = (session: number): void => {
      connection.request({ type: "cancel", target: id, session }).result.catch(() => undefined);
    };
    const ended = new AbortController();
    for (const stop of stops) {
      const onStop = (): void => {
        cancel(stop.session);
      };
      if (isAborted(stop.signal)) onStop();
      else stop.signal?.addEventListener("abort", onStop, { once: true, signal: ended.signal });
    }
    const onAbort = (): void => {
      cancel(mainSession);
      timer = setTimeout(() => {
        connection.kill(failure("engine-died", "", "", "a cancel was not obeyed").error);
      }, cancelConfirmMs);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const done = await result;
      // A result that crossed the cancel on its way is not wanted any more.
      if (isAborted(signal)) throw failure("cancelled");
      return done;
    } catch (cause) {
      throw isAborted(signal) ? failure("cancelled") : cause;
    } finally {
      clearTimeout(timer);
      ended.abort();
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** The process with that model in it, whatever that takes; "cancelled" when another one is wanted meanwhile. */
  async #ready(
    request: LoadRequest | null,
    { onProgress, signal }: { onProgress?: (fraction: number) => void; signal?: AbortSignal },
  ): Promise<{ readonly connection: Connection; readonly info: ModelInfo }> {
    if (request === null) throw failure("model-not-loaded");
    if (isAborted(signal) || !sameLoad(request, this.#wanted)) throw failure("cancelled");
    const connection = await this.#connect();
    if (isAborted(signal) || !sameLoad(request, this.#wanted)) throw failure("cancelled");
    if (this.#loaded?.connection === connection && sameLoad(request, this.#loaded.request)) return this.#loaded;
    if (this.#loading?.connection !== connection || !sameLoad(request, this.#loading.request)) {
      this.#loading = this.#startLoading(connection, request);
    }
    return { connection, info: await this.#waitFor(this.#loading, onProgress, signal) };
  }

  async #connect(): Promise<Connection> {
    try {
      const connecting = this.#supervisor.connect();
      if (this.#loaded?.connection.alive !== true && this.#loading === null) {
        this.#publish({ state: "starting", model: null, error: null });
      }
      return await connecting;
    } catch (cause) {
      if (cause instanceof RingsideFailure) this.#publish({ state: "failed", model: null, error: cause.error });
      throw cause;
    }
  }

  #startLoading(connection: Connection, request: LoadRequest): Loading {
    this.#loaded = null;
    this.#publish({ state: "loading", model: null, error: null });
    const listeners = new Set<(fraction: number) => void>();
    const { result } = connection.request({ type: "load", load: this.#losses.requestFor(request) }, (reply) => {
      if (reply.type === "progress") for (const listener of listeners) listener(reply.fraction);
    });
    const finish = async (): Promise<ModelInfo> => {
      try {
        const { info } = await result;
        this.#loaded = { request, connection, info };
        this.#publish({ state: "ready", model: info, error: null });
        return info;
      } catch (cause) {
        if (cause instanceof RingsideFailure && connection.alive) {
          this.#publish({ state: "failed", model: null, error: cause.error });
        }
        throw cause;
      } finally {
        if (this.#loading?.info === info) this.#loading = null;
      }
    };
    const info = finish();
    return { request, connection, info, listeners, waiters: 0 };
  }

  async #waitFor(loading: Loading, onProgress?: (fraction: number) => void, signal?: AbortSignal): Promise<ModelInfo> {
    if (onProgress !== undefined) loading.listeners.add(onProgress);
    loading.waiters += 1;
    let onAbort: (() => void) | undefined;
    try {
      return await new Promise<ModelInfo>((resolve, reject) => {
        onAbort = () => {
          reject(failure("cancelled"));
          // Nobody else waits for it, so it is not wanted any more.
          if (loading.waiters === 1) void this.stop();
        };
        signal?.addEventListener("abort", onAbort, { once: true });
        loading.info.then(resolve, reject);
      });
    } finally {
      loading.waiters -= 1;
      if (onProgress !== undefined) loading.listeners.delete(onProgress);
      if (onAbort !== undefined) signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Loading cannot be interrupted inside the process, but the process can be ended, which frees its memory at once. */
  async #abandonLoading(): Promise<void> {
    if (this.#loading !== null) await this.#supervisor.stop();
  }

  #lost(error: RingsideError): void {
    this.#loaded = null;
    if (error.kind === "device-lost") this.#losses.note(error, this.#wanted, performance.now());
    this.#publish({ state: "failed", model: null, error, deviceLoss: this.#losses.told() });
  }

  #forgive(): void {
    this.#supervisor.forgive();
    this.#losses.forget();
    if (this.#status.deviceLoss !== null) this.#publish({ deviceLoss: null });
  }

  #publish(change: Partial<EngineStatus>): void {
    this.#status = { ...this.#status, ...change };
    for (const listener of this.#listeners) listener(this.#status);
  }
}

/** A call, because the compiler would otherwise believe that a signal once found unaborted stays so. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/** The sessions that a request goes on from. */
function generatingIn(job: Job): readonly number[] {
  if (job.type === "generate") return [mainSession];
  return job.type === "generateTogether" ? job.members.map(({ session }) => session) : [];
}

function sameLoad(left: LoadRequest, right: LoadRequest | null): boolean {
  return (
    right !== null &&
    left.folder === right.folder &&
    left.backend === right.backend &&
    left.threads === right.threads &&
    left.slopeForm === right.slopeForm &&
    left.isa === right.isa &&
    left.kvFormat === right.kvFormat &&
    left.deviceMemoryBytes === right.deviceMemoryBytes &&
    left.device === right.device
  );
}

function* batchesOf(texts: readonly string[]): Generator<readonly string[]> {
  let batch: string[] = [];
  let characters = 0;
  for (const text of texts) {
    if (batch.length > 0 && (characters + text.length > maxBatchCharacters || batch.length >= maxTextsPerRequest)) {
      yield batch;
      batch = [];
      characters = 0;
    }
    batch.push(text);
    characters += text.length;
  }
  if (batch.length > 0) yield batch;
}
