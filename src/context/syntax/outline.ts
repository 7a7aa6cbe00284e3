// Owns: the text of an outline, made from the lines that are to be kept. Must never write a line that is not in the file, but the
// mark of what was left out, and never a text longer than the file's.

export const elision = "…";

/** Longer lines are data or machine-made; cutting one would make it a line that is not in the file. */
const longestLineCharacters = 500;
/** A doc comment says what something is in its first lines; what follows are parameters and examples. */
const docLinesAtMost = 6;

export class LineSelection {
  readonly #kept: Uint8Array;
  readonly #isComment: Uint8Array;

  constructor(readonly lines: readonly string[]) {
    this.#kept = new Uint8Array(lines.length);
    this.#isComment = new Uint8Array(lines.length);
  }

  isKept(row: number): boolean {
    return this.#kept[row] === 1;
  }

  /** Rows from `first` to `last`, both included. */
  keep(first: number, last = first): void {
    this.#kept.fill(1, first, last + 1);
  }

  /** Nothing when `last` is before `first`. */
  drop(first: number, last: number): void {
    if (last >= first) this.#kept.fill(0, first, last + 1);
  }

  markComment(first: number, last: number): void {
    this.#isComment.fill(1, first, last + 1);
  }

  /** The first row of the comment that ends directly above `row`; `row` itself when there is none. */
  commentAbove(row: number): number {
    let first = row;
    while (first > 0 && this.#isComment[first - 1] === 1) first--;
    return first;
  }

  /** What the file says about itself, unless that is its licence. */
  keepHead(): void {
    let end = 0;
    while (this.#isComment[end] === 1) end++;
    const isLicence = this.lines.slice(0, end).some((line) => /copyright|licen[cs]e(?!-Identifier)/i.test(line));
    if (isLicence) this.drop(0, end - 1);
    else this.#kept.fill(1, 0, end);
  }

  /** "" when no line with a word is kept. */
  outline(): string {
    this.#shorten();
    const out: string[] = [];
    let hasWords = false;
    let elided: string[] = [];
    const flush = (): void => {
      const mark = markOf(elided);
      out.push(...(mark === undefined ? elided : [mark]));
      elided = [];
    };
    for (const [row, line] of this.lines.entries()) {
      if (this.#isSilent(row, line)) continue;
      if (this.#kept[row] === 1) {
        flush();
        out.push(line);
        hasWords ||= /\w/.test(line);
      } else elided.push(line);
    }
    flush();
    return hasWords ? out.join("\n") : "";
  }

  /** Says nothing, kept or not: an empty line, the frame of a comment, the short form of a licence. */
  #isSilent(row: number, line: string): boolean {
    if (line.trim() === "") return true;
    return this.#isComment[row] === 1 && (!/[\p{L}\p{N}]/u.test(line) || line.includes("SPDX-License-Identifier"));
  }

  #shorten(): void {
    let docLines = 0;
    for (const [row, line] of this.lines.entries()) {
      if (this.#kept[row] === 0 || this.#isSilent(row, line)) continue;
      docLines = this.#isComment[row] === 1 ? docLines + 1 : 0;
      if (docLines > docLinesAtMost || line.length > longestLineCharacters) this.#kept[row] = 0;
    }
  }
}

/** What stands for these lines; undefined when they are no longer than the mark. */
function markOf(elided: readonly string[]): string | undefined {
  const [first] = elided;
  if (first === undefined) return undefined;
  const mark = first.slice(0, first.length - first.trimStart().length) + elision;
  const characters = elided.reduce((sum, line) => sum + line.length + 1, -1);
  // The mark has one character but three bytes; each character of the lines has one byte at least.
  return characters > mark.length + 2 ? mark : undefined;
}
