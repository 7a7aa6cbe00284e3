// Owns: one question put to every shard of a repository: read in waves of as many as the engine has room for, each wave answered as
// one batch, the answers checked and merged. Must never let one shard's failure cost the others their answers.
import type { RepositoryScan } from "../context/scan";
import type { Shard, ShardFile } from "../context/shards";
import { fileSegment } from "../context/segment";
import { lastSession } from "../protocol/engine";
import type { EnginePort, GenerateDone, ModelInfo, SamplerOptions, SyncDone } from "../protocol/engine";
import { RingsideFailure } from "../protocol/errors";
import type { ErrorKind, RingsideError } from "../protocol/errors";
import type { AnswerStats, AskEvent, Citation, DoneReason, Effort } from "../protocol/qa";
import { checkCitations } from "./citations";
import { doneReasonOf, lowEffortReasoningTokens } from "./generation";
import { buildPrompt } from "./prompt";
import type { AnswerStart } from "./prompt";
import { verdictOf } from "./shardMerge";
import type { ShardVerdict } from "./shardMerge";
import { Writing } from "./writing";

export interface ShardQuestion {
  readonly scan: RepositoryScan;
  readonly shards: readonly Shard[];
  readonly question: string;
  readonly effort: Effort;
  /** For each shard, reasoning and answer together. */
  readonly maxTokens: number;
  readonly sampler: SamplerOptions;
  readonly promptLookup: boolean;
  /** As of EnginePort.sync. */
  readonly repository: string;
}

export interface ShardOutcome {
  readonly files: readonly Pick<ShardFile, "path" | "startLine" | "endLine">[];
  readonly verdict: ShardVerdict | "failed";
  readonly answer: string;
  readonly reasoning: string;
  /** Checked against the files of the shard; their offsets are those of `answer`. */
  readonly citations: readonly Citation[];
  readonly promptTokens: number;
  readonly reusedTokens: number;
  readonly readMs: number;
  readonly generatedTokens: number;
  readonly reasoningTokens: number;
  readonly reason: DoneReason | null;
  readonly error: RingsideError | null;
}

export interface ShardsDone {
  /** Of the shards that were asked, in their order. */
  readonly outcomes: readonly ShardOutcome[];
  readonly generateMs: number;
  /** By performance.now(); 0: nothing was written. */
  readonly firstTokenAt: number;
  /** "stopped": cancelled on the way. */
  readonly reason: "complete" | "stopped";
}

type Sink = (event: Extract<AskEvent, { type: "phase" | "reading" | "reasoning" | "shards" }>) => void;

/** More in one wave would keep the first findings waiting for little: passes of so many sessions are about as full as they get. */
const mostTogether = Math.min(16, lastSession);
/** A shard is a small part of the work: its reasoning is closed after this many tokens, and the answer follows from it. */
const reasoningTokens: Readonly<Record<Effort, number>> = {
  off: 0,
  low: lowEffortReasoningTokens,
  high: 2 * lowEffortReasoningTokens,
};
/** As often a batch is taken up again: by then the engine has moved to the processor, if it may. */
const lossesAtMost = 2;
/** These say something of one prompt, not of the engine. */
const failuresOfShard: ReadonlySet<ErrorKind> = new Set([
  "context-full",
  "out-of-memory",
  "argument-invalid",
  "token-out-of-range",
  "state-invalid",
  "internal",
]);

/** Rejects when the engine fails as a whole, or when every shard does. */
export async function askShards(
  question: ShardQuestion,
  engine: EnginePort,
  sink: Sink,
  signal?: AbortSignal,
): Promise<ShardsDone> {
  return new ShardAsking(question, engine, sink, signal).run();
}

/** A shard that was read and waits for its answer. */
interface Asked {
  readonly index: number;
  readonly shard: Shard;
  readonly session: number;
  readonly sync: SyncDone;
}

class ShardAsking {
  readonly #outcomes = new Map<number, ShardOutcome>();
  readonly #known: readonly string[];
  readonly #totalTokens: number;
  #passedTokens = 0;
  #readTokens = 0;
  #readMs = 0;
  #generateMs = 0;
  #firstTokenAt = 0;
  #losses = 0;

  constructor(
    private readonly request: ShardQuestion,
    private readonly engine: EnginePort,
    private readonly sink: Sink,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#known = request.scan.files.map(({ path }) => path);
    this.#totalTokens = request.shards.reduce((total, { tokens }) => total + tokens, 0);
  }

  async run(): Promise<ShardsDone> {
    let reason: ShardsDone["reason"] = "complete";
    try {
      for (let next = 0; next < this.request.shards.length;) next = await this.#wave(next);
    } catch (cause) {
      // What was found before a stop is kept.
      const isStopped = cause instanceof RingsideFailure && cause.error.kind === "cancelled";
      if (!isStopped || this.#found() === 0) throw cause;
      reason = "stopped";
    }
    const outcomes = [...this.#outcomes].sort(([a], [b]) => a - b).map(([, outcome]) => outcome);
    const [first] = outcomes;
    if (first?.error != null && outcomes.every(({ error }) => error !== null)) throw new RingsideFailure(first.error);
    return { outcomes, generateMs: this.#generateMs, firstTokenAt: this.#firstTokenAt, reason };
  }

  /** Reads and asks the shards from `first` on, as many as there is room for. Returns the next one. */
  async #wave(first: number): Promise<number> {
    const { shards } = this.request;
    const asked: Asked[] = [];
    let next = first;
    for (; next < shards.length && asked.length < mostTogether; next++) {
      const shard = shards[next] as Shard;
      this.#tell(next, next);
      this.sink({ type: "phase", phase: "reading" });
      try {
        const session = asked.length + 1;
        asked.push({ index: next, shard, session, sync: await this.#read(shard, session, this.#start()) });
      } catch (cause) {
        const error = ofShard(cause);
        if (error.kind === "out-of-memory" && asked.length > 0) break;
        this.#failed(next, shard, error);
      }
      this.#passedTokens += shard.tokens;
    }
    this.#tell(first, next - 1);
    this.sink({ type: "phase", phase: "answering" });
    this.#losses = 0;
    await this.#answer(asked);
    this.#tell(first, next - 1);
    return next;
  }

  /**
   * As one batch; should that fail, each by itself, so that the one whose failure it is does not cost the others their answers.
   * A lost device is no shard's failure, and of their answers nothing was shown: then all of them once more.
   */
  async #answer(asked: readonly Asked[]): Promise<void> {
    if (asked.length === 0) return;
    try {
      await this.#generate(asked);
    } catch (cause) {
      const isLost = isDeviceLost(cause) && ++this.#losses <= lossesAtMost;
      const error = isLost ? null : ofShard(cause);
      const [only, ...others] = asked;
      if (error !== null && only !== undefined && others.length === 0) {
        this.#failed(only.index, only.shard, error);
        return;
      }
      for (const group of isLost ? [asked] : asked.map((one) => [one])) {
        const read: Asked[] = [];
        for (const one of group) if (await this.#readAgain(one)) read.push(one);
        await this.#answer(read);
      }
    }
  }

  async #readAgain({ index, shard, session }: Asked): Promise<boolean> {
    try {
      await this.#sync(shard, session, this.#start());
      return true;
    } catch (cause) {
      this.#failed(index, shard, ofShard(cause));
      return false;
    }
  }

  async #generate(asked: readonly Asked[]): Promise<void> {
    const writings = new Map(
      asked.map(({ session }) => [session, this.#writing(reasoningTokens[this.request.effort])]),
    );
    const first = await this.#together(asked, writings, () => this.request.maxTokens);
    const cut = asked.filter(({ session }) => writings.get(session)?.end === "reasoning-limit");
    const seconds = new Map(cut.map(({ session }) => [session, this.#writing(Number.POSITIVE_INFINITY)]));
    for (const { shard, session } of cut) {
      await this.#sync(shard, session, { reasoning: writings.get(session)?.reasoning ?? "" });
    }
    const left = (session: number): number =>
      Math.max(1, this.request.maxTokens - (writings.get(session)?.tokens ?? 0));
    const second = cut.length === 0 ? new Map<number, DoneReason>() : await this.#together(cut, seconds, left);
    for (const one of asked) {
      const writing = writings.get(one.session) as Writing;
      const rest = seconds.get(one.session);
      const reason = second.get(one.session) ?? first.get(one.session) ?? "complete";
      this.#answered(one, rest === undefined ? [writing] : [writing, rest], reason);
    }
  }

  async #together(
    asked: readonly Asked[],
    writings: ReadonlyMap<number, Writing>,
    maxTokens: (session: number) => number,
  ): Promise<ReadonlyMap<number, DoneReason>> {
    const { sampler, promptLookup } = this.request;
    const stops = new Map(asked.map(({ session }) => [session, new AbortController()]));
    const startedAt = performance.now();
    try {
      const done = await this.engine.generateTogether(
        asked.map(({ session }) => ({
          session,
          maxTokens: maxTokens(session),
          sampler,
          promptLookup,
          signal: (stops.get(session) as AbortController).signal,
        })),
        {
          onTokens: (session, batch) => {
            if (this.#firstTokenAt === 0) this.#firstTokenAt = performance.now();
            if (writings.get(session)?.take(batch) === false) stops.get(session)?.abort();
          },
          ...this.#signalOption(),
        },
      );
      return new Map(
        asked.map(({ session }, index) => {
          const isRepeating = writings.get(session)?.end === "repetition";
          return [session, isRepeating ? "repetition" : doneReasonOf((done[index] as GenerateDone).reason)];
        }),
      );
    } finally {
      this.#generateMs += performance.now() - startedAt;
      for (const writing of writings.values()) writing.finish();
    }
  }

  #writing(limit: number): Writing {
    return new Writing({ reasoning: () => undefined, answer: () => undefined }, limit);
  }

  async #read(shard: Shard, session: number, start: AnswerStart): Promise<SyncDone> {
    const before = this.#passedTokens;
    const sync = await this.#sync(shard, session, start, ({ position, reusedTokens }, sinceMs) => {
      const readTokens = this.#readTokens + position - reusedTokens;
      const readMs = this.#readMs + sinceMs;
      const tokensPerSecond = readMs > 0 ? Math.max(0, readTokens * 1_000) / readMs : 0;
      const at = Math.min(this.#totalTokens, before + position);
      const secondsLeft = tokensPerSecond > 0 ? (this.#totalTokens - at) / tokensPerSecond : 0;
      this.sink({ type: "reading", position: at, promptTokens: this.#totalTokens, tokensPerSecond, secondsLeft });
    });
    this.#readTokens += sync.promptTokens - sync.reusedTokens;
    this.#readMs += sync.milliseconds;
    return sync;
  }

  async #sync(
    shard: Shard,
    session: number,
    start: AnswerStart,
    onProgress?: (at: { readonly position: number; readonly reusedTokens: number }, sinceMs: number) => void,
  ): Promise<SyncDone> {
    const { scan, question, repository } = this.request;
    const segments = shard.files.map((file) => fileSegment("base", file));
    const prompt = buildPrompt({ repository: scan.name, segments, history: [], question, start });
    const startedAt = performance.now();
    return this.engine.sync(prompt, {
      session,
      repository,
      ...this.#signalOption(),
      ...(onProgress === undefined ? {} : { onProgress: (at) => onProgress(at, performance.now() - startedAt) }),
    });
  }

  #start(): AnswerStart {
    return this.request.effort === "off" ? "closed" : "open";
  }

  #answered({ index, shard, sync }: Asked, writings: readonly Writing[], reason: DoneReason): void {
    const total = (count: (writing: Writing) => number): number =>
      writings.reduce((sum, writing) => sum + count(writing), 0);
    const answer = writings.map((writing) => writing.answer).join("");
    const reasoning = writings.map((writing) => writing.reasoning).join("");
    const citations = this.#cited(answer, shard);
    const tokens = total((writing) => writing.reasoningTokens);
    this.#outcomes.set(index, {
      files: placesOf(shard),
      verdict: verdictOf({ answer, citations }),
      answer,
      reasoning,
      citations,
      promptTokens: sync.promptTokens,
      reusedTokens: sync.reusedTokens,
      readMs: sync.milliseconds,
      generatedTokens: total((writing) => writing.tokens),
      reasoningTokens: tokens,
      reason,
      error: null,
    });
    if (reasoning === "") return;
    const part = `[${String(index + 1)}/${String(this.request.shards.length)}] ${reasoning}\n\n`;
    this.sink({ type: "reasoning", text: part, tokens });
  }

  #failed(index: number, shard: Shard, error: RingsideError): void {
    const none = { promptTokens: 0, reusedTokens: 0, readMs: 0, generatedTokens: 0, reasoningTokens: 0 };
    const silent = { answer: "", reasoning: "", citations: [], reason: null };
    this.#outcomes.set(index, { files: placesOf(shard), verdict: "failed", ...silent, ...none, error });
  }

  /** A part of a file stands behind as many empty lines as there are before it, so that its lines are those of the file. */
  #cited(answer: string, shard: Shard): readonly Citation[] {
    const packed = shard.files.map(({ file, text, startLine }) => ({
      path: file.path,
      text: "\n".repeat(startLine - 1) + text,
    }));
    return checkCitations(answer, { repository: this.request.scan.name, packed, known: this.#known });
  }

  #found(): number {
    return [...this.#outcomes.values()].filter(({ verdict }) => verdict === "found").length;
  }

  #tell(first: number, last: number): void {
    this.sink({
      type: "shards",
      shards: {
        total: this.request.shards.length,
        first: first + 1,
        last: last + 1,
        asked: this.#outcomes.size,
        found: this.#found(),
      },
    });
  }

  #signalOption(): { signal?: AbortSignal } {
    return this.signal === undefined ? {} : { signal: this.signal };
  }
}

function isDeviceLost(cause: unknown): boolean {
  return cause instanceof RingsideFailure && cause.error.kind === "device-lost";
}

/** Throws what is not one shard's alone. */
function ofShard(cause: unknown): RingsideError {
  if (cause instanceof RingsideFailure && failuresOfShard.has(cause.error.kind)) return cause.error;
  throw cause;
}

function placesOf({ files }: Shard): ShardOutcome["files"] {
  return files.map(({ file, startLine, endLine }) => ({ path: file.path, startLine, endLine }));
}

/** Figures of all shards together: what a second was used for, the passes of a batch served many. */
export function shardStats(
  { outcomes, generateMs, firstTokenAt }: ShardsDone,
  info: ModelInfo,
  startedAt: number,
): AnswerStats {
  const total = (count: (outcome: ShardOutcome) => number): number =>
    outcomes.reduce((sum, outcome) => sum + count(outcome), 0);
  const promptTokens = total((outcome) => outcome.promptTokens);
  const reusedTokens = total((outcome) => outcome.reusedTokens);
  const prefillMs = total((outcome) => outcome.readMs);
  const generatedTokens = total((outcome) => outcome.generatedTokens);
  return {
    promptTokens,
    reusedTokens,
    prefillMs,
    firstTokenMs: Math.max(0, firstTokenAt - startedAt),
    ...(promptTokens > reusedTokens && prefillMs > 0
      ? { prefillTokensPerSecond: ((promptTokens - reusedTokens) * 1_000) / prefillMs }
      : {}),
    ...(generatedTokens > 0 && generateMs > 0 ? { decodeTokensPerSecond: (generatedTokens * 1_000) / generateMs } : {}),
    generatedTokens,
    reasoningTokens: total((outcome) => outcome.reasoningTokens),
    backend: info.backend,
    device: info.device,
  };
}
