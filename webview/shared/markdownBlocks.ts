// Owns: where the blocks of a growing Markdown text begin and end, and which of them no further text can change.
// Must never touch the page: it is pure, so that its one promise can be tested by property.
import MarkdownParser from "markdown-it";
import type { MarkdownIt, Token } from "markdown-it";

/**
 * Raw HTML is text, images are links, and only web addresses are links. Reference definitions are off: they would let the end of an
 * answer change its beginning, and hide an address from the reader.
 */
export function createParser(): MarkdownIt {
  const parser = new MarkdownParser({ html: false, linkify: false, typographer: false });
  parser.disable(["reference", "image", "autolink"]);
  parser.validateLink = (address) => /^https?:\/\/[^\s/]/i.test(address);
  return parser;
}

export interface Block {
  /** In UTF-16 units of the whole text. */
  readonly start: number;
  readonly end: number;
}

const lineBreak = /\r\n?|\n/g;

/** The offset of each line's first character, and of the text's end. The parser counts lines the same way. */
export function lineStarts(text: string): number[] {
  const starts = [0];
  for (const match of text.matchAll(lineBreak)) starts.push(match.index + match[0].length);
  if (starts[starts.length - 1] !== text.length) starts.push(text.length);
  return starts;
}

function topLevelLines(tokens: readonly Token[]): number[] {
  return tokens.flatMap(({ level, nesting, map }) => (level === 0 && nesting >= 0 && map !== null ? [map[0]] : []));
}

/** Cuts the text from `from` on into top-level blocks; each reaches up to the next one's first line. */
export function blocksFrom(parser: MarkdownIt, text: string, from: number): Block[] {
  const rest = text.slice(from);
  const starts = lineStarts(rest);
  const firsts = topLevelLines(parser.parse(rest, {}));
  return firsts.map((line, index) => {
    const next = firsts[index + 1];
    return { start: from + (starts[line] ?? 0), end: next === undefined ? text.length : from + (starts[next] ?? 0) };
  });
}

/**
 * The blocks that stay as they are whatever is appended: all but the last one of the complete lines. A line that is still
 * growing may yet turn out to belong to the paragraph before it.
 */
export function settledBlocks(parser: MarkdownIt, text: string, from: number): Block[] {
  const complete = text.slice(0, Math.max(from, text.lastIndexOf("\n") + 1));
  return blocksFrom(parser, complete, from).slice(0, -1);
}
