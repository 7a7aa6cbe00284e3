// Owns: the port through which this room has its long work done on another thread. Implemented in src/worker/client.ts.
import type { JobInput, JobName, JobResult } from "./jobs";

export interface ContextWorker {
  /**
   * Rejects with "cancelled", with "worker-missing" where there is no thread to run it, or with a WorkerDied when the thread ended or
   * was ended while it was at this job.
   */
  run<J extends JobName>(job: J, input: JobInput<J>, signal?: AbortSignal): Promise<JobResult<J>>;
  /** What is running or waiting is cancelled. */
  dispose(): void;
}

/** The job threw, took too long, used too much memory, or somebody ended the thread. */
export class WorkerDied extends Error {
  override readonly name = "WorkerDied";
}
