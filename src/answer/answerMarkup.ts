// Owns: where the blocks and paths stand in an answer's Markdown. Must never judge whether they are true.

export interface AnswerBlock {
  /** Of the whole block with its fences, in UTF-16 units. */
  readonly offset: number;
  readonly length: number;
  readonly lines: readonly string[];
  /** A path in the info string, as some models write it. */
  readonly named: string;
}

export interface AnswerPath {
  readonly offset: number;
  readonly length: number;
  /** As written, without a line number. */
  readonly name: string;
  /** 1-based; 0: none was written. */
  readonly startLine: number;
  readonly endLine: number;
  /** Stands in backticks: then it is meant as a path or as code, not as prose. */
  readonly marked: boolean;
}

export interface AnswerMarkup {
  readonly blocks: readonly AnswerBlock[];
  readonly paths: readonly AnswerPath[];
}

const openFence = /^[ \t]*(?:>[ \t]*)*(?:[-*+][ \t]+|\d+[.)][ \t]+)?(`{3,}|~{3,})([^\n]*)$/;
const inBackticks = /(?<!`)(`+)(?!`)([^\n]+?)(?<!`)\1(?!`)/g;
const plainPath = /(?<![\w/.@:#~+-])(?:[\w@.+-]+\/)*[\w@+-][\w@.+-]*\.[A-Za-z]\w{0,7}(?![\w/])/g;
const lineNumber = /^(?::|#L|, lines? |\(lines? )(\d+)(?:(?:-|–|-L| to )(\d+))?/;

/**
 * A name with a folder or an extension; whether it is a file, only the repository can tell. The folders are one group of the
 * pattern: a group for each would take time exponential in their number, and the name is the model's.
 */
export function looksLikePath(name: string): boolean {
  return name.length <= 512 && /^(?:[^\s`"'<>|*?:\\]+\/)?[^\s`"'<>|*?:/\\]*\.[A-Za-z]\w{0,7}$/.test(name);
}

export function readMarkup(answer: string): AnswerMarkup {
  const blocks: AnswerBlock[] = [];
  const paths: AnswerPath[] = [];
  let proseStart = 0;
  let at = 0;
  while (at < answer.length) {
    const end = lineEnd(answer, at);
    const fence = openFence.exec(answer.slice(at, end));
    if (fence === null) {
      at = end + 1;
      continue;
    }
    paths.push(...readPaths(answer, proseStart, at));
    const block = readBlock(answer, at, end, fence[1] ?? "```", fence[2] ?? "");
    blocks.push(block);
    at = block.offset + block.length + 1;
    proseStart = Math.min(at, answer.length);
  }
  paths.push(...readPaths(answer, proseStart, answer.length));
  return { blocks, paths };
}

function lineEnd(text: string, start: number): number {
  const newline = text.indexOf("\n", start);
  return newline < 0 ? text.length : newline;
}

function readBlock(answer: string, offset: number, openEnd: number, mark: string, info: string): AnswerBlock {
  const close = new RegExp(String.raw`^[ \t]*(?:>[ \t]*)*${mark}${mark.charAt(0)}*[ \t]*$`);
  const lines: string[] = [];
  let at = openEnd + 1;
  let end = answer.length;
  let isClosed = false;
  while (at < answer.length && !isClosed) {
    const stop = lineEnd(answer, at);
    const line = answer.slice(at, stop);
    isClosed = close.test(line);
    if (isClosed) end = stop;
    else lines.push(line);
    at = stop + 1;
  }
  // An answer that was cut short ends in the middle of a line, which is then no quote.
  if (!isClosed && lines.length > 1 && !answer.endsWith("\n")) lines.pop();
  const named = info.split(/\s+/).find((word) => looksLikePath(word.replace(lineSuffix, ""))) ?? "";
  return { offset, length: end - offset, lines, named: named.replace(lineSuffix, "") };
}

const lineSuffix = /(?::|#L)\d+(?:-L?\d+)?$/;

function readPaths(answer: string, start: number, end: number): AnswerPath[] {
  const prose = answer.slice(start, end);
  const found: AnswerPath[] = [];
  const unmarked = prose.replace(inBackticks, (all: string, _mark: string, inner: string, offset: number) => {
    const trimmed = inner.trim();
    const suffix = lineSuffix.exec(trimmed)?.[0] ?? "";
    const name = trimmed.slice(0, trimmed.length - suffix.length);
    const after = suffix === "" ? prose.slice(offset + all.length) : suffix;
    found.push({ offset: start + offset, length: all.length, name, ...linesOf(after), marked: true });
    return " ".repeat(all.length);
  });
  for (const match of unmarked.matchAll(plainPath)) {
    const after = unmarked.slice(match.index + match[0].length);
    found.push({
      offset: start + match.index,
      length: match[0].length,
      name: match[0],
      ...linesOf(after),
      marked: false,
    });
  }
  return found.sort((a, b) => a.offset - b.offset);
}

function linesOf(after: string): { startLine: number; endLine: number } {
  const match = lineNumber.exec(after);
  if (match === null) return { startLine: 0, endLine: 0 };
  const startLine = Number(match[1]);
  return { startLine, endLine: Math.max(startLine, Number(match[2] ?? match[1])) };
}
