// Owns: a folder as the commands read it: from the disk, with its files parsed on another thread. Must never read anything itself.
import { factsFromWorker } from "../context/factSources";
import type { FactSources } from "../context/fileFacts";
import { RepositoryContext } from "../context/repositoryContext";
import type { ContextOptions } from "../context/repositoryContext";
import { createContextWorker } from "../worker/client";
import { DiskRepository } from "./diskRepository";
import { places } from "./places";

/** The thread ends with the process: without work it keeps nothing waiting. */
export function repositoryOf(folder: string, options: Omit<ContextOptions, keyof FactSources> = {}): RepositoryContext {
  const worker = createContextWorker({ script: places.contextWorker });
  return new RepositoryContext(new DiskRepository(folder), { ...factsFromWorker(worker), ...options });
}
