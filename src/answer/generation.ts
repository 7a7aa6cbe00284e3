// Owns: reading the prompt, generating, and splitting what comes into reasoning and answer; at low effort also the end of a
// reasoning that runs too long. Must never know where the prompt's files came from.
import type { EnginePort, GenerateDone, SamplerOptions, SyncDone, SyncProgress } from "../protocol/engine";
import { RingsideFailure } from "../protocol/errors";
import type { DoneReason, Effort, ReadingProgress } from "../protocol/qa";
import { buildPrompt } from "./prompt";
import type { PromptRequest } from "./prompt";
import { Writing } from "./writing";

export interface GenerationRequest {
  readonly prompt: PromptRequest;
  /** As of EnginePort.sync; "": not to be kept. */
  readonly repository: string;
  readonly maxTokens: number;
  readonly sampler: SamplerOptions;
  readonly promptLookup: boolean;
  readonly effort: Effort;
}

export interface GenerationSink {
  readonly phase: (phase: "reading" | "reasoning" | "answering") => void;
  readonly reading: (progress: ReadingProgress) => void;
  /** The prompt has been read to its end. */
  readonly read: () => void;
  /** The new text and the tokens since the last call. */
  readonly reasoning: (text: string, tokens: number) => void;
  readonly answer: (text: string) => void;
}

export interface Generated {
  readonly reason: DoneReason;
  readonly sync: SyncDone;
  readonly done: GenerateDone;
  /** By performance.now(). */
  readonly firstTokenAt: number;
  readonly reasoningTokens: number;
}

/** At low effort the reasoning is closed after this many tokens, and the answer follows from what was thought so far. */
export const lowEffortReasoningTokens = 256;

const doneReasons = {
  "stop-token": "complete",
  "token-limit": "token-limit",
  "context-full": "context-full",
  cancelled: "stopped",
} as const satisfies Record<GenerateDone["reason"], Generated["reason"]>;

/** How an answer ended that the engine ended so. */
export function doneReasonOf(reason: GenerateDone["reason"]): DoneReason {
  return doneReasons[reason];
}

export async function generateAnswer(
  request: GenerationRequest,
  engine: EnginePort,
  sink: GenerationSink,
  signal?: AbortSignal,
): Promise<Generated> {
  const { repository } = request;
  const sync = await read(request.prompt, repository, engine, sink, signal);
  sink.read();
  const limit = request.effort === "low" ? lowEffortReasoningTokens : Number.POSITIVE_INFINITY;
  const first = new Pass(sink, request.prompt.start === "open", limit);
  const done = await first.generate(engine, request, request.maxTokens, signal);
  if (done !== null) return first.result(sync, done);
  const prompt: PromptRequest = { ...request.prompt, start: { reasoning: first.reasoning } };
  await read(prompt, repository, engine, { ...sink, phase: () => undefined, reading: () => undefined }, signal);
  const second = new Pass(sink, false, Number.POSITIVE_INFINITY);
  const left = Math.max(1, request.maxTokens - first.tokens);
  const rest = await second.generate(engine, request, left, signal);
  if (rest === null) throw new Error("an answer without a reasoning limit cannot reach it");
  return first.joined(sync, second, rest);
}

export function readingProgress({ position, promptTokens, tokensPerSecond }: SyncProgress): ReadingProgress {
  const secondsLeft = tokensPerSecond > 0 ? Math.max(0, promptTokens - position) / tokensPerSecond : 0;
  return { position, promptTokens, tokensPerSecond, secondsLeft };
}

async function read(
  prompt: PromptRequest,
  repository: string,
  engine: EnginePort,
  sink: GenerationSink,
  signal: AbortSignal | undefined,
): Promise<SyncDone> {
  sink.phase("reading");
  return engine.sync(buildPrompt(prompt), {
    repository,
    onProgress: (progress) => {
      sink.reading(readingProgress(progress));
    },
    ...(signal === undefined ? {} : { signal }),
  });
}

/** One call of generate(). */
class Pass {
  #startedAt = 0;
  readonly #writing: Writing;

  constructor(
    private readonly sink: GenerationSink,
    private readonly mayReason: boolean,
    reasoningLimit: number,
  ) {
    let isAnswering = false;
    this.#writing = new Writing(
      {
        reasoning: sink.reasoning,
        answer: (text) => {
          if (!isAnswering) sink.phase("answering");
          isAnswering = true;
          sink.answer(text);
        },
      },
      reasoningLimit,
    );
  }

  get reasoning(): string {
    return this.#writing.reasoning;
  }

  get tokens(): number {
    return this.#writing.tokens;
  }

  /** null: the reasoning reached its limit and was ended. */
  async generate(
    engine: EnginePort,
    { sampler, promptLookup }: GenerationRequest,
    maxTokens: number,
    signal: AbortSignal | undefined,
  ): Promise<GenerateDone | null> {
    const limit = new AbortController();
    const stop = (): void => {
      limit.abort();
    };
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted === true) stop();
    this.#startedAt = performance.now();
    if (this.mayReason) this.sink.phase("reasoning");
    try {
      const done = await engine.generate(
        { maxTokens, sampler, promptLookup },
        {
          signal: limit.signal,
          onTokens: (batch) => {
            if (!this.#writing.take(batch)) stop();
          },
        },
      );
      this.#writing.finish();
      return done;
    } catch (cause) {
      this.#writing.finish();
      const wasUser = signal?.aborted === true;
      if (wasUser || !(cause instanceof RingsideFailure) || cause.error.kind !== "cancelled") throw cause;
      // What lookup did until then is not told of a generation that was stopped.
      const told = { tokens: this.tokens, drafted: 0, accepted: 0, ...this.#times() };
      if (this.#writing.end === "repetition") return { reason: "cancelled", ...told };
      if (this.#writing.end === "reasoning-limit") return null;
      throw cause;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  result(sync: SyncDone, done: GenerateDone, last: Pass = this): Generated {
    const { firstTokenAt, reasoningTokens } = this.#writing;
    return {
      reason: last.#writing.end === "repetition" ? "repetition" : doneReasonOf(done.reason),
      sync,
      done,
      firstTokenAt: firstTokenAt === 0 ? performance.now() : firstTokenAt,
      reasoningTokens,
    };
  }

  /** The figures of two passes as if they were one; the second read of the prompt's end counts as generation. */
  joined(sync: SyncDone, second: Pass, done: GenerateDone): Generated {
    const tokens = this.tokens + second.tokens;
    return this.result(sync, { ...done, tokens, ...this.#times() }, second);
  }

  #times(): Pick<GenerateDone, "milliseconds" | "firstTokenMs"> {
    const { firstTokenAt } = this.#writing;
    return { milliseconds: performance.now() - this.#startedAt, firstTokenMs: firstTokenAt - this.#startedAt };
  }
}
