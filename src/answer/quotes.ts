// Owns: where a quote of whole lines stands in the packed texts. Equal means equal: only blank space at line ends and one common
// change of indentation are forgiven, and in a file that was read as an outline the lines that it leaves out. Must never call lines
// found that the file does not hold.
import { elision } from "../context/segment";

export interface PackedText {
  readonly path: string;
  readonly text: string;
  /** "outline": the model saw some of the lines of `text`, in their order. */
  readonly mode?: "full" | "outline";
}

export interface QuotePlace {
  readonly path: string;
  /** 1-based, inclusive. */
  readonly startLine: number;
  readonly endLine: number;
}

const placesAtMost = 1_000;

/** Looks quotes up in one set of packed texts; a file is split into lines only once something of it was found. */
export class QuoteIndex {
  readonly #lines = new Map<string, { readonly lines: readonly string[]; readonly starts: readonly number[] }>();

  constructor(private readonly texts: readonly PackedText[]) {}

  /** All places of the quote, in the order of the texts. Blank lines around it do not count. */
  find(quoted: readonly string[]): QuotePlace[] {
    const quote = withoutBlankEnds(quoted.map((line) => line.trimEnd()));
    const anchor = longestLine(quote);
    const needle = quote[anchor]?.trim() ?? "";
    if (needle === "") return [];
    const places: QuotePlace[] = [];
    for (const packed of this.texts) {
      for (let at = packed.text.indexOf(needle); at >= 0;) {
        const file = this.#linesOf(packed);
        const line = lineOf(file.starts, at);
        const first = line - anchor;
        if (isQuotedAt(file.lines, first, quote, anchor)) {
          places.push({ path: packed.path, startLine: first + 1, endLine: first + quote.length });
          if (places.length >= placesAtMost) return places;
        }
        const next = file.starts[line + 1];
        at = next === undefined ? -1 : packed.text.indexOf(needle, next);
      }
    }
    return places;
  }

  /** Places of a quote that holds lines "…" as an outline does: what is between them stands in the file in this order. */
  findElided(quoted: readonly string[]): QuotePlace[] {
    const runs = runsOf(quoted);
    const [first, ...others] = runs;
    if (first === undefined || others.length === 0) return [];
    const outlines = new Set(this.texts.filter(({ mode }) => mode === "outline").map(({ path }) => path));
    const later = others.map((run) => this.find(run));
    return this.find(first).flatMap((place) => {
      if (!outlines.has(place.path)) return [];
      let end = place.endLine;
      for (const places of later) {
        const next = places.find(({ path, startLine }) => path === place.path && startLine > end);
        if (next === undefined) return [];
        end = next.endLine;
      }
      return [{ ...place, endLine: end }];
    });
  }

  /** Number of lines of a packed file; 0 when it is not packed. */
  lineCount(path: string): number {
    const packed = this.texts.find((candidate) => candidate.path === path);
    return packed === undefined ? 0 : this.#linesOf(packed).lines.length;
  }

  #linesOf(packed: PackedText): { readonly lines: readonly string[]; readonly starts: readonly number[] } {
    const known = this.#lines.get(packed.path);
    if (known !== undefined) return known;
    const lines = packed.text.split("\n");
    const starts: number[] = [];
    let start = 0;
    for (const line of lines) {
      starts.push(start);
      start += line.length + 1;
    }
    const entry = { lines, starts };
    this.#lines.set(packed.path, entry);
    return entry;
  }
}

function runsOf(quoted: readonly string[]): string[][] {
  const runs: string[][] = [[]];
  for (const line of quoted) {
    if (line.trim() === elision) runs.push([]);
    else runs.at(-1)?.push(line);
  }
  return runs.filter((run) => run.some((line) => line.trim() !== ""));
}

function withoutBlankEnds(lines: readonly string[]): readonly string[] {
  const first = lines.findIndex((line) => line !== "");
  const last = lines.findLastIndex((line) => line !== "");
  return first < 0 ? [] : lines.slice(first, last + 1);
}

function longestLine(lines: readonly string[]): number {
  let best = 0;
  for (const [index, line] of lines.entries()) if (line.trim().length > (lines[best] ?? "").trim().length) best = index;
  return best;
}

/** Index of the line that holds the character at `offset`. */
function lineOf(starts: readonly number[], offset: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

function isQuotedAt(lines: readonly string[], first: number, quote: readonly string[], anchor: number): boolean {
  if (first < 0 || first + quote.length > lines.length) return false;
  const ours = (lines[first + anchor] ?? "").trimEnd();
  const theirs = quote[anchor] ?? "";
  if (ours.trimStart() !== theirs.trimStart()) return false;
  const oursIndent = ours.slice(0, ours.length - ours.trimStart().length);
  const theirIndent = theirs.slice(0, theirs.length - theirs.trimStart().length);
  const isDeeper = oursIndent.endsWith(theirIndent);
  if (!isDeeper && !theirIndent.endsWith(oursIndent)) return false;
  const added = isDeeper ? oursIndent.slice(0, oursIndent.length - theirIndent.length) : "";
  const removed = isDeeper ? "" : theirIndent.slice(0, theirIndent.length - oursIndent.length);
  return quote.every((line, index) => {
    const own = (lines[first + index] ?? "").trimEnd();
    return line === "" || own === "" ? line === own : added + line === removed + own;
  });
}
