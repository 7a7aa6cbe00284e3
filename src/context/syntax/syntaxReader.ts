// Owns: the syntax of files as the rooms above ask for it: read by the worker, by its lines where parsing it ended the worker.
// Must never parse on the caller's thread.
import { WorkerDied } from "../worker";
import type { ContextWorker } from "../worker";
import { emptySyntax, longestTextCharacters, unpackSyntax } from "./fileSyntax";
import type { FileSyntax, SyntaxReader } from "./fileSyntax";

export class WorkerSyntaxReader implements SyntaxReader {
  constructor(private readonly worker: ContextWorker) {}

  async read(path: string, text: string, signal?: AbortSignal): Promise<FileSyntax> {
    return (await this.#run("syntax", path, text, signal)) ?? this.readLines(path, text, signal);
  }

  async readLines(path: string, text: string, signal?: AbortSignal): Promise<FileSyntax> {
    return (await this.#run("syntaxOfLines", path, text, signal)) ?? emptySyntax;
  }

  /** null: it ended the thread. */
  async #run(
    job: "syntax" | "syntaxOfLines",
    path: string,
    text: string,
    signal: AbortSignal | undefined,
  ): Promise<FileSyntax | null> {
    if (text.length > longestTextCharacters) return emptySyntax;
    try {
      return unpackSyntax(await this.worker.run(job, { path, text }, signal));
    } catch (error) {
      if (error instanceof WorkerDied) return null;
      throw error;
    }
  }

  dispose(): void {
    this.worker.dispose();
  }
}
