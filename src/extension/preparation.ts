// Owns: what is done before a question: planning how much of the folder would be read, three questions made from it and, when it
// is told to, the reading itself. Runs in the background of a trusted folder only, and gives way to every question. Must never
// tell of its failures but in the log.
import { EventEmitter } from "vscode";
import type { LogOutputChannel } from "vscode";
import { readingProgress } from "../answer/generation";
import { planQuestion } from "../answer/preview";
import { standingPieces } from "../answer/prompt";
import { suggestQuestions } from "../answer/suggestions";
import type { Ranking } from "../context/basePlan";
import type { ContextPlan } from "../context/plan";
import type { SyncProgress } from "../protocol/engine";
import { failure } from "../protocol/errors";
import type { PlanSummary } from "../protocol/qa";
import type { EngineAccess } from "./engineAccess";
import type { OpenRepository, Repository } from "./repository";
import { repositoryName, workspaceState } from "./trust";
import { errorOf, wordError } from "./words";
import type { Disposable } from "./disposable";

/** Changes within this time are told together. */
const changesMs = 100;

interface Running {
  readonly abort: AbortController;
  /** Whether the model has read everything. */
  readonly ended: Promise<boolean>;
  readonly reads: boolean;
}

export class Preparation implements Disposable {
  readonly #repository: Repository;
  readonly #engine: EngineAccess;
  readonly #log: LogOutputChannel;
  readonly #changed = new EventEmitter<void>();
  #running: Running | null = null;
  #stops = 0;
  #coverage: PlanSummary | null = null;
  #suggestions: readonly string[] = [];
  /** The base that the suggestions were made from. */
  #suggestedFrom = "";
  #plannedPaths: ReadonlySet<string> = new Set();
  #readPaths: ReadonlySet<string> = new Set();
  /** Folders end with "/". */
  #ignoredPaths: ReadonlySet<string> = new Set();
  readonly #changedPaths = new Set<string>();
  #tellTimer: ReturnType<typeof setTimeout> | null = null;
  readonly onDidChange = this.#changed.event;

  constructor(repository: Repository, engine: EngineAccess, log: LogOutputChannel) {
    this.#repository = repository;
    this.#engine = engine;
    this.#log = log;
  }

  get coverage(): PlanSummary | null {
    return this.#coverage;
  }

  get suggestions(): readonly string[] {
    return this.#suggestions;
  }

  /** Files that are another on the disk than the model read. */
  get changedFiles(): number {
    const seen = [...this.#changedPaths].filter((path) => this.#readPaths.has(path));
    // What changed while the editor was closed nobody saw happen.
    return new Set([...seen, ...(this.#repository.open?.context.stale ?? [])]).size;
  }

  get isReading(): boolean {
    return this.#running?.reads === true;
  }

  /** Plans. Does nothing where it is not allowed to read, or already at it. */
  start(): void {
    if (this.#running === null) this.#begin(false);
  }

  /**
   * Plans, and lets the model read what every question reads; true when it has. `rebase`: changed files in the place of their old
   * copies. Never rejects.
   */
  async readAhead(rebase = false): Promise<boolean> {
    const stops = this.#stops;
    while (this.#running?.reads === false) await this.#running.ended;
    // Whoever stopped the planning wants the engine now.
    if (stops !== this.#stops) return false;
    this.#begin(true, rebase);
    return this.#running?.ended ?? false;
  }

  async stop(): Promise<void> {
    this.#stops += 1;
    this.#running?.abort.abort();
    await this.#running?.ended;
  }

  learn(plan: ContextPlan): void {
    this.#coverage = plan.summary;
    if (this.#suggestedFrom !== plan.prefixKey) this.#suggestions = suggestQuestions(plan.segments);
    this.#suggestedFrom = plan.prefixKey;
    this.#plannedPaths = new Set(plan.segments.map(({ path }) => path));
    this.#ignoredPaths = new Set(plan.files.filter(({ reason }) => reason === "ignored").map(({ path }) => path));
    this.#changed.fire();
  }

  /** A file changed on the disk; false: it is an ignored one, the output of a build for example. */
  noteChange(path: string): boolean {
    if (this.#isIgnored(path)) return false;
    if (!this.#changedPaths.has(path)) {
      this.#changedPaths.add(path);
      // Another branch may have changed thousands of files at once.
      this.#tellTimer ??= setTimeout(() => this.#tell(), changesMs);
    }
    return true;
  }

  #isIgnored(path: string): boolean {
    if (this.#ignoredPaths.has(path)) return true;
    let slash = path.lastIndexOf("/");
    while (slash > 0 && !this.#ignoredPaths.has(path.slice(0, slash + 1))) slash = path.lastIndexOf("/", slash - 1);
    return slash > 0;
  }

  /** To be called before a reading; what it returns, when the model has read the last plan. What changes in between stays changed. */
  markChanges(): () => void {
    const before = [...this.#changedPaths];
    return () => {
      this.#readPaths = this.#plannedPaths;
      for (const path of before) this.#changedPaths.delete(path);
      this.#tell();
    };
  }

  forget(): void {
    this.#stops += 1;
    this.#running?.abort.abort();
    this.#coverage = null;
    this.#suggestions = [];
    this.#suggestedFrom = "";
    this.#readPaths = new Set();
    this.#ignoredPaths = new Set();
    this.#changedPaths.clear();
    this.#tell();
  }

  #tell(): void {
    if (this.#tellTimer !== null) clearTimeout(this.#tellTimer);
    this.#tellTimer = null;
    this.#changed.fire();
  }

  #begin(reads: boolean, rebase = false): void {
    const { open } = this.#repository;
    if (this.#running !== null || open === null || workspaceState() !== "ready") return;
    const abort = new AbortController();
    const ended = this.#prepare(open, { reads, rebase }, abort.signal).catch((cause: unknown) => {
      const error = errorOf(cause);
      if (error.kind !== "cancelled") this.#log.warn(`preparing: ${wordError(error)}`);
      return false;
    });
    this.#running = { abort, ended, reads };
    void ended.then(() => {
      if (this.#running?.abort === abort) this.#running = null;
    });
  }

  async #prepare(
    { context }: OpenRepository,
    { reads, rebase }: { readonly reads: boolean; readonly rebase: boolean },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { port } = this.#engine;
    const request = this.#engine.loadRequest();
    // Not stopped with the rest: a question that comes meanwhile needs the model as well.
    const loading = port.load(request);
    loading.catch((cause: unknown) => this.#engine.noteLoadFailure(request.folder, cause));
    const noteRead = this.markChanges();
    const scan = await context.scan({ signal });
    const info = await orCancelled(loading, signal);
    const { scope, choices } = this.#repository;
    const question = { text: "", history: [], scope, pinned: [], choices, rebase };
    const learned = async (ranking: Ranking): Promise<ContextPlan> => {
      const { plan } = await planQuestion({ ...question, ranking }, context, port, scan, info, signal);
      if (signal.aborted) throw failure("cancelled");
      this.learn(plan);
      return plan;
    };
    // What is shown comes at once and is made good when every file is known; what is read waits for that, since it stays.
    if (!reads) await learned("first");
    const plan = await learned("complete");
    if (!reads) return false;
    const prompt = standingPieces({ repository: scan.name, segments: plan.prompt });
    try {
      const onProgress = (progress: SyncProgress): void => this.#engine.noteReading(readingProgress(progress));
      await port.sync(prompt, { repository: repositoryName(), signal, onProgress });
    } finally {
      this.#engine.noteReading(null);
    }
    noteRead();
    await context.markRead(plan);
    return true;
  }

  dispose(): void {
    if (this.#tellTimer !== null) clearTimeout(this.#tellTimer);
    this.#running?.abort.abort();
    this.#changed.dispose();
  }
}

/** The work itself goes on, but nobody who stops the preparation waits for it. */
async function orCancelled<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    work.then(resolve, reject);
    const cancel = (): void => reject(failure("cancelled"));
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
  });
}
