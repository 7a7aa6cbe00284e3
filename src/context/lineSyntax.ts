// Owns: names and outline of a file by the shape of its lines. Must never claim to parse.
import type { Definition } from "./definitions";
import { definitionsIn } from "./definitions";

export interface FileSyntax {
  readonly definitions: readonly Definition[];
  /** Names used but not defined in the file, with how often. */
  readonly references: ReadonlyMap<string, number>;
  /** Lines of the file in order, with a line "…" for what lies between them; "": nothing to show. */
  readonly outline: string;
}

export interface SyntaxReader {
  read(path: string, text: string, signal?: AbortSignal): Promise<FileSyntax>;
}

export const linesHere: SyntaxReader = {
  read: (path, text) => {
    const definitions = definitionsIn(path, text);
    const defined = new Set(definitions.map(({ name }) => name));
    const references = new Map<string, number>();
    for (const [name] of text.matchAll(/[A-Za-z_$][\w$]*/g)) {
      if (!defined.has(name)) references.set(name, (references.get(name) ?? 0) + 1);
    }
    const lines = text.split("\n");
    const shown: string[] = [];
    let next = 0;
    for (const { line } of definitions) {
      if (line - 1 > next) shown.push("…");
      shown.push(lines[line - 1] ?? "");
      next = line;
    }
    if (shown.length > 0 && next < lines.length) shown.push("…");
    return Promise.resolve({ definitions, references, outline: shown.join("\n") });
  },
};
