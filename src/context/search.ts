// Owns: plain text search over the files of a scan, those that were not packed included. Must never hold the thread for long.
import type { ScannedFile } from "./contentCache";
import { definitionsIn } from "./definitions";
import type { Definition } from "./definitions";
import { Pace } from "./pace";
import type { RepositoryScan } from "./scan";

export interface FileHits {
  readonly file: ScannedFile;
  /** How often the name stands in the file as a whole word; at most 1,000. */
  readonly hits: number;
  /** Offset of the first. */
  readonly firstOffset: number;
  /** Where the file defines the name, if it does. */
  readonly definition: Definition | undefined;
}

const mostHits = 1_000;

/** Files in which each name stands, by name, in the order of `files`. One pass over the texts. */
export async function searchNames(
  scan: RepositoryScan,
  files: readonly ScannedFile[],
  names: readonly string[],
  signal?: AbortSignal,
): Promise<Map<string, FileHits[]>> {
  const found = new Map<string, FileHits[]>(names.map((name) => [name, []]));
  if (names.length === 0) return found;
  const pace = new Pace(signal);
  for (const file of files) {
    await pace.breathe();
    const text = await scan.text(file);
    if (text === undefined) continue;
    let definitions: readonly Definition[] | undefined;
    for (const name of names) {
      const { hits, firstOffset } = wordHits(text, name);
      if (hits === 0) continue;
      definitions ??= definitionsIn(file.path, text);
      const definition = definitions.find((candidate) => candidate.name === name);
      found.get(name)?.push({ file, hits, firstOffset, definition });
    }
  }
  return found;
}

const wordCharacter = /[\p{L}\p{N}_$]/u;

/** Whole words only: the name must not go on to either side, unless it begins or ends with something else than a word. */
export function wordHits(text: string, name: string): { hits: number; firstOffset: number } {
  let hits = 0;
  let firstOffset = -1;
  const wordStart = wordCharacter.test(name.charAt(0));
  const wordEnd = wordCharacter.test(name.charAt(name.length - 1));
  for (let at = text.indexOf(name); at >= 0 && hits < mostHits; at = text.indexOf(name, at + name.length)) {
    if (wordStart && wordCharacter.test(text.charAt(at - 1))) continue;
    if (wordEnd && wordCharacter.test(text.charAt(at + name.length))) continue;
    if (hits === 0) firstOffset = at;
    hits++;
  }
  return { hits, firstOffset };
}
