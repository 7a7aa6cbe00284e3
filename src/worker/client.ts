// Owns: the one worker thread of a process as the rooms above see it: started with the first job, ended when it is idle, started
// again when it died. Must never do a job itself, nor take a thread that cannot be started for one that died of its job, nor give
// the thread more at a time than the caller's thread can take back at once.
import { Worker } from "node:worker_threads";
import type { JobInput, JobName, JobResult } from "../context/jobs";
import { WorkerDied } from "../context/worker";
import type { ContextWorker } from "../context/worker";
import { failure } from "../protocol/errors";

export interface WorkerOptions {
  /** The bundled thread.ts. */
  readonly script: string;
  readonly log?: (line: string) => void;
  /** A job that takes longer hangs, and its thread is ended. */
  readonly jobMs?: number;
  /** A thread without work for so long is ended, with the memory of its grammars. */
  readonly idleMs?: number;
  /** The thread ends when its objects need more; the grammars' own memory is not among them. */
  readonly heapMb?: number;
}

export interface JobRequest {
  readonly id: number;
  readonly job: JobName;
  readonly input: JobInput<JobName>;
}

export interface JobReply {
  readonly id: number;
  readonly result: JobResult<JobName>;
}

/** The thread's first word: what ends it before that has nothing to do with any job. */
export type Started = "started";

interface Task {
  readonly job: JobName;
  readonly input: JobInput<JobName>;
  readonly resolve: (result: JobResult<JobName>) => void;
  readonly reject: (error: Error) => void;
  /** The caller waits no more. */
  isOver: boolean;
}

/** Enough that the thread never waits for us, few enough that all their results together are taken in well under 16 ms. */
const jobsAtOnce = 8;
const defaultJobMs = 20_000;
/** A thread that has not said its first word for so long does not start. */
const mostStartMs = 60_000;
const defaultIdleMs = 60_000;
const defaultHeapMb = 1_024;

export function createContextWorker(options: WorkerOptions): ContextWorker {
  return new ThreadClient(options);
}

class ThreadClient implements ContextWorker {
  readonly #options: WorkerOptions;
  readonly #waiting: Task[] = [];
  /** In the order in which the thread does them. */
  readonly #sent = new Map<number, Task>();
  readonly #signals = new FollowedSignals();
  #thread: Worker | undefined;
  #hasStarted = false;
  #lastId = 0;
  #timer: NodeJS.Timeout | undefined;
  #isDisposed = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  async run<J extends JobName>(job: J, input: JobInput<J>, signal?: AbortSignal): Promise<JobResult<J>> {
    if (this.#isDisposed || signal?.aborted === true) throw failure("cancelled");
    return new Promise<JobResult<J>>((resolve, reject) => {
      const over = (): void => {
        task.isOver = true;
        if (signal !== undefined) this.#signals.forget(signal, task);
      };
      const task: Task = {
        job,
        input,
        resolve: (result) => {
          over();
          resolve(result as JobResult<J>); // The thread answers a job with what that job gives.
        },
        reject: (error) => {
          over();
          reject(error);
        },
        isOver: false,
      };
      if (signal !== undefined) this.#signals.follow(signal, task);
      this.#waiting.push(task);
      this.#send();
    });
  }

  dispose(): void {
    this.#isDisposed = true;
    for (const task of [...this.#sent.values(), ...this.#waiting.splice(0)]) task.reject(failure("cancelled"));
    this.#sent.clear();
    this.#end();
  }

  #send(): void {
    while (this.#sent.size < jobsAtOnce && this.#waiting.length > 0) {
      const task = this.#waiting.shift();
      if (task === undefined || task.isOver) continue;
      const id = ++this.#lastId;
      this.#sent.set(id, task);
      this.#thread ??= this.#start();
      this.#thread.ref();
      this.#thread.postMessage({ id, job: task.job, input: task.input } satisfies JobRequest);
      if (this.#sent.size === 1) this.#watch();
    }
  }

  #start(): Worker {
    const { script, heapMb = defaultHeapMb } = this.#options;
    // Options of this process (a debugger's, say) are not the thread's.
    const thread = new Worker(script, { execArgv: [], resourceLimits: { maxOldGenerationSizeMb: heapMb } });
    let reason = "ended";
    this.#hasStarted = false;
    thread.on("message", (message: Started | JobReply) => {
      if (thread !== this.#thread) return;
      if (message !== "started") {
        this.#take(message);
        return;
      }
      this.#hasStarted = true;
      this.#watch();
    });
    thread.on("error", (error: unknown) => (reason = error instanceof Error ? error.message : String(error)));
    thread.on("exit", () => this.#died(thread, reason));
    return thread;
  }

  #take({ id, result }: JobReply): void {
    const task = this.#sent.get(id);
    this.#sent.delete(id);
    if (task?.isOver === false) task.resolve(result);
    this.#send();
    this.#watch();
  }

  /** The first job that was sent is the one that the thread was at: the others are sent to the next thread. */
  #died(thread: Worker, reason: string): void {
    if (thread !== this.#thread) return;
    this.#thread = undefined;
    clearTimeout(this.#timer);
    if (!this.#hasStarted) {
      this.#isNotThere(reason);
      return;
    }
    const [running, ...others] = this.#sent.values();
    this.#sent.clear();
    this.#waiting.unshift(...others);
    this.#options.log?.(`context worker: ${reason}${running === undefined ? "" : ` in ${describe(running)}`}`);
    if (running?.isOver === false) running.reject(new WorkerDied(reason));
    this.#send();
  }

  /** The next thread would not start either: whoever asks again tries it. */
  #isNotThere(reason: string): void {
    const { script, log } = this.#options;
    const [line = ""] = reason.split("\n");
    log?.(`context worker: ${script} does not start: ${line}`);
    const tasks = [...this.#sent.values(), ...this.#waiting.splice(0)];
    this.#sent.clear();
    for (const task of tasks) if (!task.isOver) task.reject(failure("worker-missing", script, "", line));
  }

  /** Called whenever another job is the first one: it has its own time, and the start of the thread has another. */
  #watch(): void {
    clearTimeout(this.#timer);
    const { jobMs = defaultJobMs, idleMs = defaultIdleMs } = this.#options;
    if (this.#sent.size > 0) {
      const thread = this.#thread;
      const limitMs = this.#hasStarted ? jobMs : mostStartMs;
      this.#timer = setTimeout(() => {
        void thread?.terminate();
        if (thread !== undefined) this.#died(thread, `no result within ${String(limitMs)} ms`);
      }, limitMs);
      return;
    }
    this.#thread?.unref();
    this.#timer = setTimeout(() => this.#end(), idleMs);
    this.#timer.unref();
  }

  #end(): void {
    clearTimeout(this.#timer);
    const thread = this.#thread;
    this.#thread = undefined;
    void thread?.terminate();
  }
}

/** One listener a signal, however many jobs it may cancel: Node warns of more than ten. */
class FollowedSignals {
  readonly #followed = new Map<AbortSignal, { readonly tasks: Set<Task>; readonly cancel: () => void }>();

  follow(signal: AbortSignal, task: Task): void {
    let followed = this.#followed.get(signal);
    if (followed === undefined) {
      const tasks = new Set<Task>();
      const cancel = (): void => {
        for (const each of tasks) each.reject(failure("cancelled"));
      };
      followed = { tasks, cancel };
      this.#followed.set(signal, followed);
      signal.addEventListener("abort", cancel, { once: true });
    }
    followed.tasks.add(task);
  }

  forget(signal: AbortSignal, task: Task): void {
    const followed = this.#followed.get(signal);
    if (followed?.tasks.delete(task) !== true || followed.tasks.size > 0) return;
    this.#followed.delete(signal);
    signal.removeEventListener("abort", followed.cancel);
  }
}

function describe({ job, input }: Task): string {
  return `${job} of ${input.path}`;
}
