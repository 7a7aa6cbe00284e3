// Owns: the long work of this room by its names, so that another thread can do it. Each job takes and gives plain data, that can
// be copied from thread to thread, and keeps nothing but what makes the next one faster. Must never read a repository.
import { secretsHere } from "./secretRules";
import { packSyntax } from "./syntax/fileSyntax";
import type { PackedSyntax } from "./syntax/fileSyntax";
import { syntaxOfLines } from "./syntax/lineParser";
import { TreeParser } from "./syntax/treeParser";
import type { ReadGrammar } from "./syntax/treeParser";

export interface SourceText {
  readonly path: string;
  readonly text: string;
}

/** What the thread runs. A job that throws ends the thread: only a fault of our own or of a grammar does. */
export function contextJobs(readGrammar: ReadGrammar) {
  const trees = new TreeParser(readGrammar);
  return {
    syntax: async ({ path, text }: SourceText): Promise<PackedSyntax> =>
      packSyntax((await trees.read(path, text)) ?? syntaxOfLines(path, text)),
    secrets: async ({ path, text }: SourceText): Promise<boolean> => secretsHere.hasSecret(path, text),
    syntaxOfLines: ({ path, text }: SourceText): PackedSyntax => packSyntax(syntaxOfLines(path, text)),
  };
}

export type ContextJobs = ReturnType<typeof contextJobs>;
export type JobName = keyof ContextJobs;
export type JobInput<J extends JobName> = Parameters<ContextJobs[J]>[0];
export type JobResult<J extends JobName> = Awaited<ReturnType<ContextJobs[J]>>;
