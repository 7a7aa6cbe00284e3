// Owns: the port through which this room has a text looked at for keys, tokens and passwords, and the way to the worker's thread.
// Must never hold the rules themselves: they are large, and the thread alone needs them.
import { WorkerDied } from "./worker";
import type { ContextWorker } from "./worker";

export interface SecretFinder {
  hasSecret(path: string, text: string, signal?: AbortSignal): Promise<boolean>;
}

/** On the worker's thread. A text on which a rule does not come to an end is not shown to be harmless: it counts as a secret. */
export function secretsOnWorker(worker: ContextWorker): SecretFinder {
  return {
    hasSecret: async (path, text, signal) => {
      try {
        return await worker.run("secrets", { path, text }, signal);
      } catch (error) {
        if (error instanceof WorkerDied) return true;
        throw error;
      }
    },
  };
}
