// Owns: one question from its first character to its checked answer, told as AskEvents. Every failure becomes one "failed" event.
// Must never change the user's words, and never leave a question without an end.
import type { Ranking } from "../context/basePlan";
import type { ContextPlan } from "../context/plan";
import type { RepositoryContext } from "../context/repositoryContext";
import type { RepositoryScan } from "../context/scan";
import type { Shard, ShardCut } from "../context/shards";
import type { EnginePort, LoadRequest, ModelInfo, SamplerOptions } from "../protocol/engine";
import { failure, RingsideFailure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import { isFound, questionLimitCharacters } from "../protocol/qa";
import type { AnswerStats, AskEvent, Citation, Effort, FileChoices, RefusalCheck } from "../protocol/qa";
import { checkCitations } from "./citations";
import { generateAnswer } from "./generation";
import type { Generated } from "./generation";
import { planQuestion, shareForQuestion } from "./preview";
import type { HistoryTurn, PromptRequest } from "./prompt";
import type { PackedText } from "./quotes";
import { checkRefusal, refusedName } from "./refusal";
import { askShards, shardStats } from "./scan";
import type { ShardOutcome } from "./scan";
import { foundFiles, mergeAnswers } from "./shardMerge";
import type { CheckedFile } from "./shardMerge";

export interface AskInput {
  readonly text: string;
  readonly effort: Effort;
  /** Earlier turns of the conversation, oldest first. */
  readonly history?: readonly HistoryTurn[];
  /** Folders to read; empty: all. */
  readonly scope?: readonly string[];
  /** Files that must be read for this question. */
  readonly pinned?: readonly string[];
  readonly choices?: FileChoices;
  /** "first": not to wait until every file was parsed. Without it, "complete". */
  readonly ranking?: Ranking;
  /** Reasoning and answer together; without it, the window's share for them. */
  readonly maxTokens?: number;
  readonly sampler?: SamplerOptions;
  /** See EnginePort.generate; without it, true. */
  readonly promptLookup?: boolean;
  /** Put to every shard of the repository. It must be clear by itself: earlier turns are not told, nor is anything pinned. */
  readonly exhaustive?: boolean;
  /** Room for the files of one shard, at most what the window has; without it, {@link defaultShardTokens}. */
  readonly shardTokens?: number;
}

export interface AskDependencies {
  readonly context: RepositoryContext;
  readonly engine: EnginePort;
  readonly load: LoadRequest;
  /** Its name, if what is read of it may be kept on this machine's disk (EnginePort.sync). */
  readonly repository?: string;
}

export type AskSink = (event: AskEvent) => void;

/** What is left of a question; what a failure or a stop kept from happening is null or empty. */
export interface AskOutcome {
  readonly answer: string;
  readonly reasoning: string;
  readonly citations: readonly Citation[];
  readonly refusal: RefusalCheck | null;
  readonly scan: RepositoryScan | null;
  readonly plan: ContextPlan | null;
  /** Of an exhaustive question. */
  readonly shards: readonly ShardOutcome[];
  readonly leftOut: ShardCut["leftOut"];
  readonly stats: AnswerStats | null;
  readonly done: Extract<AskEvent, { type: "done" }>["reason"] | null;
  readonly error: RingsideError | null;
}

/** The tested mode of the embedded model. */
export const greedy: SamplerOptions = { temperature: 0, topP: 1, repetitionPenalty: 1, seed: 0 };

/** Small models find more in less; and a wave of them is worth its passes (docs/PERFORMANCE.md). */
export const defaultShardTokens = 16_384;

/** Engines with a question under way. They would refuse a second one too, but only once its repository was scanned. */
const asking = new WeakSet<EnginePort>();

/** Never rejects. The last event is "done" or "failed". */
export async function ask(
  input: AskInput,
  dependencies: AskDependencies,
  sink: AskSink,
  signal?: AbortSignal,
): Promise<AskOutcome> {
  const { engine } = dependencies;
  const question = new Question(input, dependencies, sink, signal);
  if (asking.has(engine)) {
    question.end(failure("engine-busy", "question"));
    return question.outcome();
  }
  asking.add(engine);
  try {
    await question.run();
  } catch (cause) {
    question.end(cause);
  } finally {
    asking.delete(engine);
  }
  return question.outcome();
}

interface Prepared {
  readonly request: PromptRequest;
  readonly generationTokens: number;
}

class Question {
  readonly #startedAt = performance.now();
  #scan: RepositoryScan | null = null;
  #plan: ContextPlan | null = null;
  #shards: readonly ShardOutcome[] = [];
  #leftOut: ShardCut["leftOut"] = [];
  #answer = "";
  #reasoning = "";
  #citations: readonly Citation[] = [];
  #refusal: RefusalCheck | null = null;
  #stats: AnswerStats | null = null;
  #done: AskOutcome["done"] = null;
  #error: RingsideError | null = null;

  constructor(
    private readonly input: AskInput,
    private readonly dependencies: AskDependencies,
    private readonly sink: AskSink,
    private readonly signal: AbortSignal | undefined,
  ) {}

  outcome(): AskOutcome {
    return {
      answer: this.#answer,
      reasoning: this.#reasoning,
      citations: this.#citations,
      refusal: this.#refusal,
      scan: this.#scan,
      plan: this.#plan,
      shards: this.#shards,
      leftOut: this.#leftOut,
      stats: this.#stats,
      done: this.#done,
      error: this.#error,
    };
  }

  async run(): Promise<void> {
    const { text } = this.input;
    if (text.trim() === "") throw failure("question-empty");
    if (text.length > questionLimitCharacters) {
      throw failure("question-too-long", "question", String(questionLimitCharacters), String(text.length));
    }
    const { scan, info } = await this.#prepare();
    if (this.input.exhaustive === true) return this.#askEverywhere(scan, info);
    const { request, generationTokens } = await this.#planPrompt(scan, info);
    let reason: AskOutcome["done"] = "stopped";
    try {
      reason = await this.#generate(request, generationTokens, info);
    } catch (cause) {
      // What was shown before a stop is kept and checked like a whole answer.
      if (!isCancelled(cause) || this.#answer === "") throw cause;
    }
    const segments = this.#plan?.segments ?? [];
    const readPaths = new Set(segments.map(({ path }) => path));
    // By path: of a file that was read both as an outline and in full, the later one, and of an outline the whole text behind it.
    const byPath = new Map(segments.map(({ file, path, source, mode }) => [path, { file, path, text: source, mode }]));
    await this.#check(scan, [...byPath.values()], { name: refusedName(this.#answer), readPaths });
    this.#finish(reason);
  }

  async #askEverywhere(scan: RepositoryScan, info: ModelInfo): Promise<void> {
    const { engine, repository = "" } = this.dependencies;
    const { text, effort, maxTokens, sampler = greedy, promptLookup = true } = this.input;
    this.sink({ type: "phase", phase: "planning" });
    const { shards, generationTokens } = await this.#cut(scan, info);
    const options = { effort, sampler, promptLookup, maxTokens: Math.min(maxTokens ?? 1_024, generationTokens) };
    const question = { scan, shards, question: text, repository, ...options };
    const done = await askShards(question, engine, this.sink, this.signal);
    this.#shards = done.outcomes;
    this.#reasoning = done.outcomes.map(({ reasoning }) => reasoning).join("\n\n");
    this.#answer = mergeAnswers(done.outcomes);
    this.sink({ type: "answer", text: this.#answer });
    this.#stats = shardStats(done, info, this.#startedAt);
    this.sink({ type: "stats", stats: this.#stats });
    const paths = new Set(shards.flatMap(({ files }) => files.map(({ file }) => file.path)));
    // What one shard could not find, another has.
    const name = this.#shards.some(({ verdict }) => verdict === "found") ? undefined : refusedName(this.#answer);
    await this.#check(scan, foundFiles(shards, this.#shards), { name, readPaths: paths });
    this.#finish(done.reason);
  }

  async #cut(
    scan: RepositoryScan,
    info: ModelInfo,
  ): Promise<{ readonly shards: readonly Shard[]; readonly generationTokens: number }> {
    const { context, engine } = this.dependencies;
    const { text, scope = [], choices = {}, shardTokens = defaultShardTokens } = this.input;
    const shares = await shareForQuestion({ text, history: [] }, engine, { scan, info }, undefined, this.signal);
    const budgetTokens = Math.min(shardTokens, shares.availableTokens);
    const { shards, leftOut } = await context.cut(
      scan,
      {
        model: info.folder,
        count: (texts, countSignal) => engine.countTokens(texts, countSignal),
        scope,
        choices,
        shardTokens: budgetTokens,
      },
      this.signal,
    );
    if (shards.length === 0)
      throw failure("context-full", "shard", "room for a line", `${String(budgetTokens)} tokens`);
    this.#leftOut = leftOut;
    const readFiles = new Set(shards.flatMap(({ files }) => files.map(({ file }) => file))).size;
    const readTokens = shards.reduce((total, { tokens }) => total + tokens, 0);
    this.sink({
      type: "plan",
      plan: {
        budgetTokens: shards.length * budgetTokens,
        readFiles,
        totalFiles: scan.files.length,
        readTokens,
        outlinedFiles: 0,
        leftOutFiles: 0,
        overTokens: 0,
      },
    });
    return { shards, generationTokens: shares.generationTokens };
  }

  /** Words the end of a question that did not get to it by itself. */
  end(cause: unknown): void {
    if (isCancelled(cause)) {
      this.#finish("stopped");
      return;
    }
    const failed = cause instanceof RingsideFailure ? cause : failure("internal", "question", "", String(cause));
    this.#error = failed.error;
    this.sink({ type: "failed", error: this.#error });
  }

  #finish(reason: AskOutcome["done"]): void {
    this.#done = reason ?? "stopped";
    this.sink({ type: "done", reason: this.#done });
  }

  /** Scans while the model loads: both take their time only once. */
  async #prepare(): Promise<{ scan: RepositoryScan; info: ModelInfo }> {
    const { context, engine, load } = this.dependencies;
    const options = this.#signalOption();
    const loading = engine.load(load, options);
    loading.catch(() => undefined); // Awaited below; a failure meanwhile must not count as unhandled.
    this.sink({ type: "phase", phase: "scanning" });
    const scan = await context.scan({
      signal: this.signal,
      onProgress: (files) => {
        this.sink({ type: "scan", files });
      },
    });
    this.#scan = scan;
    this.sink({ type: "phase", phase: "loading" });
    return { scan, info: await loading };
  }

  async #planPrompt(scan: RepositoryScan, info: ModelInfo): Promise<Prepared> {
    const { context, engine } = this.dependencies;
    const { text, history = [], scope = [], pinned = [], choices = {}, ranking = "complete", effort } = this.input;
    this.sink({ type: "phase", phase: "planning" });
    const question = { text, history, scope, pinned, choices, ranking };
    const planned = await planQuestion(question, context, engine, scan, info, this.signal);
    this.#plan = planned.plan;
    this.sink({ type: "plan", plan: planned.plan.summary });
    const request: PromptRequest = {
      repository: scan.name,
      segments: planned.plan.prompt,
      history: planned.history,
      question: text,
      start: effort === "off" ? "closed" : "open",
    };
    return { request, generationTokens: planned.generationTokens };
  }

  async #generate(request: PromptRequest, generationTokens: number, info: ModelInfo): Promise<AskOutcome["done"]> {
    const { maxTokens = generationTokens, sampler = greedy, promptLookup = true, effort } = this.input;
    const generated = await generateAnswer(
      { prompt: request, repository: this.dependencies.repository ?? "", maxTokens, sampler, promptLookup, effort },
      this.dependencies.engine,
      {
        phase: (phase) => {
          this.sink({ type: "phase", phase });
        },
        reading: (progress) => {
          this.sink({ type: "reading", ...progress });
        },
        reasoning: (text, tokens) => {
          this.#reasoning += text;
          this.sink({ type: "reasoning", text, tokens });
        },
        read: () => {
          // Beside the answer: what is kept of it is for the next process.
          if (this.#plan !== null) void this.dependencies.context.markRead(this.#plan);
        },
        answer: (text) => {
          this.#answer += text;
          this.sink({ type: "answer", text });
        },
      },
      this.signal,
    );
    this.#stats = statsOf(generated, info, this.#startedAt);
    this.sink({ type: "stats", stats: this.#stats });
    return generated.reason;
  }

  /** Also done for an answer that was stopped: its quotes are always checked. Only the search after a refusal can take long. */
  async #check(
    scan: RepositoryScan,
    packed: readonly CheckedFile[],
    refusal: { readonly name: string | undefined; readonly readPaths: ReadonlySet<string> },
  ): Promise<void> {
    const { context } = this.dependencies;
    this.sink({ type: "phase", phase: "checking" });
    await assertStillThere(context);
    const known = scan.files.map(({ path }) => path);
    const replaced = earlierTexts(this.#plan);
    const citations = checkCitations(this.#answer, { repository: scan.name, packed, known, replaced });
    const byPath = new Map(packed.map((file) => [file.path, file]));
    const cited = new Set(citations.map(({ path }) => path));
    const stale = new Set<string>();
    for (const path of cited) {
      const read = byPath.get(path);
      if (read !== undefined && !(await scan.isCurrent(read.file, read.text))) stale.add(path);
    }
    this.#citations = citations.map((citation) => ({
      ...citation,
      stale: isFound(citation) && stale.has(citation.path),
    }));
    this.sink({ type: "citations", citations: this.#citations });
    if (refusal.name === undefined) return;
    this.#refusal = await checkRefusal(refusal.name, scan, refusal.readPaths, this.signal);
    this.sink({ type: "refusal", refusal: this.#refusal });
  }

  #signalOption(): { signal?: AbortSignal } {
    return this.signal === undefined ? {} : { signal: this.signal };
  }
}

/** What the model read besides the newest texts: old copies of files that changed. */
function earlierTexts(plan: ContextPlan | null): readonly PackedText[] {
  const newest = new Set(plan?.segments.map(({ text }) => text));
  return (plan?.prompt ?? []).flatMap(({ file }) => (file === null || newest.has(file.text) ? [] : [file]));
}

async function assertStillThere(context: RepositoryContext): Promise<void> {
  try {
    await context.reader.readDirectory("");
  } catch (cause) {
    throw failure("repository-gone", context.reader.name, "", String(cause));
  }
}

function isCancelled(cause: unknown): boolean {
  return cause instanceof RingsideFailure && cause.error.kind === "cancelled";
}

function statsOf(generated: Generated, info: ModelInfo, startedAt: number): AnswerStats {
  const { sync, done, firstTokenAt, reasoningTokens } = generated;
  const readTokens = sync.promptTokens - sync.reusedTokens;
  const decodeMs = done.milliseconds - done.firstTokenMs;
  return {
    promptTokens: sync.promptTokens,
    reusedTokens: sync.reusedTokens,
    prefillMs: sync.milliseconds,
    firstTokenMs: firstTokenAt - startedAt,
    ...(readTokens > 0 && sync.milliseconds > 0
      ? { prefillTokensPerSecond: (readTokens * 1000) / sync.milliseconds }
      : {}),
    ...(done.tokens > 1 && decodeMs > 0 ? { decodeTokensPerSecond: ((done.tokens - 1) * 1000) / decodeMs } : {}),
    generatedTokens: done.tokens,
    reasoningTokens,
    ...(done.drafted > 0 ? { draftedTokens: done.drafted, acceptedTokens: done.accepted } : {}),
    backend: info.backend,
    device: info.device,
  };
}
