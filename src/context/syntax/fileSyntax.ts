// Owns: what is known of one file's syntax, and the port through which this room asks for it. Plain data, so that it can cross
// from the thread that parses. Must never hold the text itself.
import type { Definition } from "../definitions";

export interface FileSyntax {
  /** In the order of the lines. */
  readonly definitions: readonly Definition[];
  /** Names that the file uses and does not define, with how often. */
  readonly references: ReadonlyMap<string, number>;
  /**
   * Signatures and doc comments: exact copies of lines of the file, in order. What was left out between two of them is one
   * line with "…". Never longer than the file; "" when nothing can be outlined.
   */
  readonly outline: string;
  /** "lines": no grammar for this language, or it failed on this file. */
  readonly parser: "tree-sitter" | "lines";
}

export interface SyntaxReader {
  /** Rejects as the worker does, but for its death: a file that no parser takes has an empty outline. */
  read(path: string, text: string, signal?: AbortSignal): Promise<FileSyntax>;
  /** By the shape of its lines, whatever grammar there is for it: in a tenth of the time. */
  readLines(path: string, text: string, signal?: AbortSignal): Promise<FileSyntax>;
  dispose(): void;
}

export const emptySyntax: FileSyntax = { definitions: [], references: new Map(), outline: "", parser: "lines" };

/** Longer texts are no source that a person wrote; they get no syntax at all. */
export const longestTextCharacters = 4 * 1024 * 1024;
/** More definitions, or more names used, than this say nothing more about a file. */
export const mostDefinitions = 5_000;
export const mostReferences = 5_000;
export const longestNameCharacters = 200;

/** The same as data that is quickly copied and small to keep: of a large repository there are millions of references. */
export interface PackedSyntax extends Omit<FileSyntax, "references"> {
  /** Lines of name, space, count. */
  readonly references: string;
}

export function packSyntax(syntax: FileSyntax): PackedSyntax {
  const references = Array.from(syntax.references, ([name, times]) => `${name} ${String(times)}`).join("\n");
  return { ...syntax, references };
}

/** Its `references` are unpacked each time they are asked for. */
export function unpackSyntax(packed: PackedSyntax): FileSyntax {
  const { definitions, outline, parser } = packed;
  return {
    definitions,
    outline,
    parser,
    get references() {
      return unpackReferences(packed.references);
    },
  };
}

function unpackReferences(lines: string): Map<string, number> {
  const references = new Map<string, number>();
  if (lines === "") return references;
  for (const line of lines.split("\n")) {
    const space = line.indexOf(" ");
    references.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return references;
}
