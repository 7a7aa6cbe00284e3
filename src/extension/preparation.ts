// Owns: what the panel shows before a question: how much of the folder would be read, and three questions made from it. Runs in
// the background of a trusted folder only, and gives way to every question. Must never tell of its failures but in the log.
import { EventEmitter } from "vscode";
import type { LogOutputChannel } from "vscode";
import { planQuestion } from "../answer/preview";
import { suggestQuestions } from "../answer/suggestions";
import type { ContextPlan } from "../context/plan";
import { failure } from "../protocol/errors";
import type { PlanSummary } from "../protocol/qa";
import type { EngineAccess } from "./engineAccess";
import type { OpenRepository, Repository } from "./repository";
import { workspaceState } from "./trust";
import { errorOf, wordError } from "./words";
import type { Disposable } from "./disposable";

export class Preparation implements Disposable {
  readonly #repository: Repository;
  readonly #engine: EngineAccess;
  readonly #log: LogOutputChannel;
  readonly #changed = new EventEmitter<void>();
  #running: { readonly abort: AbortController; readonly ended: Promise<void> } | null = null;
  #coverage: PlanSummary | null = null;
  #suggestions: readonly string[] = [];
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

  /** Does nothing where it is not allowed to read, or already at it. */
  start(): void {
    const { open } = this.#repository;
    if (this.#running !== null || open === null || workspaceState() !== "ready") return;
    const abort = new AbortController();
    const ended = this.#prepare(open, abort.signal).catch((cause: unknown) => {
      const error = errorOf(cause);
      if (error.kind !== "cancelled") this.#log.warn(`preparing: ${wordError(error)}`);
    });
    this.#running = { abort, ended };
    void ended.then(() => {
      if (this.#running?.abort === abort) this.#running = null;
    });
  }

  async stop(): Promise<void> {
    this.#running?.abort.abort();
    await this.#running?.ended;
  }

  learn(plan: ContextPlan): void {
    this.#coverage = plan.summary;
    this.#suggestions = suggestQuestions(plan.segments);
    this.#changed.fire();
  }

  forget(): void {
    this.#running?.abort.abort();
    this.#coverage = null;
    this.#suggestions = [];
    this.#changed.fire();
  }

  async #prepare({ context }: OpenRepository, signal: AbortSignal): Promise<void> {
    const request = this.#engine.loadRequest();
    // Not stopped with the rest: a question that comes meanwhile needs the model as well.
    const loading = this.#engine.port.load(request);
    loading.catch((cause: unknown) => this.#engine.noteLoadFailure(request.folder, cause));
    const scan = await context.scan({ signal });
    const info = await orCancelled(loading, signal);
    const question = { text: "", history: [], scope: this.#repository.scope, pinned: [] };
    const { plan } = await planQuestion(question, context, this.#engine.port, scan, info, signal);
    if (!signal.aborted) this.learn(plan);
  }

  dispose(): void {
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
