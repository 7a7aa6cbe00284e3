// Owns: that all looking into files is done by one worker. Must never do any of it itself.
import type { FactSources } from "./fileFacts";
import { secretsOnWorker } from "./secrets";
import { WorkerSyntaxReader } from "./syntax/syntaxReader";
import type { ContextWorker } from "./worker";

export function factsFromWorker(worker: ContextWorker): FactSources {
  return { syntax: new WorkerSyntaxReader(worker), secrets: secretsOnWorker(worker) };
}
