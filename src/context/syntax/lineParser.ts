// Owns: the syntax of a file that no grammar takes, by the shape of its lines. Must take time that grows with the text and no faster.
import { definitionsIn, extensionOf, isSource } from "../definitions";
import type { Definition } from "../definitions";
import {
  emptySyntax,
  longestNameCharacters,
  longestTextCharacters,
  mostDefinitions,
  mostReferences,
} from "./fileSyntax";
import type { FileSyntax } from "./fileSyntax";
import { LineSelection } from "./outline";

const commentLine = /^\s*(?:\/\/|\/\*|\*|#(?!!|\s*(?:include|define|if|endif|else|pragma|undef)\b)|--|;|"""|''')/;
const heading = /^#{1,6}\s/;
const words = /[A-Za-z_$][\w$]*/g;
const prose = new Set(["md", "mdx", "markdown"]);

export function syntaxOfLines(path: string, text: string): FileSyntax {
  if (text.length > longestTextCharacters) return emptySyntax;
  if (prose.has(extensionOf(path))) return { ...emptySyntax, outline: headings(text) };
  if (!isSource(path)) return emptySyntax;
  const definitions = definitionsIn(path, text).slice(0, mostDefinitions);
  return {
    definitions,
    references: references(text, definitions),
    outline: outline(text, definitions),
    parser: "lines",
  };
}

function outline(text: string, definitions: readonly Definition[]): string {
  const selection = new LineSelection(text.split("\n"));
  for (const [row, line] of selection.lines.entries()) {
    if (commentLine.test(line.slice(0, 200))) selection.markComment(row, row);
  }
  for (const { line, kind, isTopLevel } of definitions) {
    if (kind === "value" && !isTopLevel) continue; // More likely a variable of a function.
    selection.keep(selection.commentAbove(line - 1), line - 1);
  }
  selection.keepHead();
  return selection.outline();
}

/** The headings of Markdown, those in code blocks left out. */
function headings(text: string): string {
  const selection = new LineSelection(text.split("\n"));
  let isCode = false;
  for (const [row, line] of selection.lines.entries()) {
    if (/^\s{0,3}(?:```|~~~)/.test(line)) isCode = !isCode;
    else if (!isCode && heading.test(line)) selection.keep(row);
  }
  return selection.outline();
}

/** Words in comments and strings count as well: telling them apart is what a grammar is for. */
function references(text: string, definitions: readonly Definition[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const [word] of text.matchAll(words)) {
    if (word.length > longestNameCharacters) continue;
    const times = found.get(word);
    if (times !== undefined) found.set(word, times + 1);
    else if (found.size < mostReferences) found.set(word, 1);
  }
  for (const { name } of definitions) found.delete(name);
  return found;
}
