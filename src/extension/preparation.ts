// Owns: what is done before a question: planning how much of the folder would be read, three questions made from it and, when it
// is told to, the reading itself. Runs in the background of a trusted folder only, and gives way to every question. Must never
// tell of its failures but in the log.
import { EventEmitter } from "vscode";
import type { LogOutputChannel } from "vscode";
import { planAhead, readAhead } from "../answer/readAhead";
import { suggestQuestions } from "../answer/suggestions";
import type { ContextPlan } from "../context/plan";
import type { PlanSummary, ReadingProgress } from "../protocol/qa";
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
    const load = this.#engine.loadRequest();
    // The same loading as that of the reading: its failure is shown beside the model's folder.
    port.load(load).catch((cause: unknown) => this.#engine.noteLoadFailure(load.folder, cause));
    const dependencies = { context, engine: port, load, repository: repositoryName() };
    const { scope, choices } = this.#repository;
    const onPlan = (plan: ContextPlan): void => this.learn(plan);
    if (!reads) {
      await planAhead(dependencies, { scope, choices, onPlan, signal });
      return false;
    }
    const noteRead = this.markChanges();
    try {
      const onProgress = (progress: ReadingProgress): void => this.#engine.noteReading(progress);
      // What the watcher did not tell of, the next question finds, or the next long quiet.
      const what = { scope, choices, rebase, onlyNoted: !rebase };
      await readAhead(dependencies, { ...what, onPlan, onProgress, signal });
    } finally {
      this.#engine.noteReading(null);
    }
    noteRead();
    return true;
  }

  dispose(): void {
    if (this.#tellTimer !== null) clearTimeout(this.#tellTimer);
    this.#running?.abort.abort();
    this.#changed.dispose();
  }
}
