// Owns: how the answers of all shards become one: the places that they found, each once, by path, with the model's words about it.
// Must never bring in a place that was not found in the files, nor words that neither the model nor a file has written.
import type { ScannedFile } from "../context/contentCache";
import { comparePaths } from "../context/repoReader";
import type { Shard } from "../context/shards";
import { isFound } from "../protocol/qa";
import type { Citation } from "../protocol/qa";
import { refusedName } from "./refusal";
import { withoutWholeClaims } from "./wholeClaims";

export interface ShardAnswer {
  readonly answer: string;
  /** Of this answer, checked against the files of its shard. */
  readonly citations: readonly Citation[];
}

export interface CheckedFile {
  readonly file: ScannedFile;
  readonly path: string;
  readonly text: string;
}

/** "found": at least one place that is there. "unproven": words without one. "nothing": the shard does not hold what was asked. */
export type ShardVerdict = "found" | "unproven" | "nothing";

interface Finding {
  readonly place: Citation;
  readonly words: string;
  /** As it stands in the answer; "": a path alone was named. */
  readonly quote: string;
}

export function verdictOf({ answer, citations }: ShardAnswer): ShardVerdict {
  if (citations.some((citation) => citation.kind === "block" && isProof(citation))) return "found";
  if (answer.trim() === "" || refusedName(answer) !== undefined) return "nothing";
  return citations.some(isProof) ? "found" : "unproven";
}

/**
 * Markdown for the findings in the order of their paths. Where several shards quote something, what one of them says of the whole
 * repository is left out. Where no shard proved a place, what was said without one; where all of them have nothing, the first
 * one's refusal.
 */
export function mergeAnswers(answers: readonly ShardAnswer[]): string {
  const findings = answers.map(findingsOf);
  const quoting = findings.filter((of) => of.some(({ quote }) => quote !== ""));
  const places = new Map<string, Finding>();
  for (const of of findings) {
    const isOneOfMany = quoting.some((other) => other !== of);
    for (const { place, words, quote } of of) {
      const left = isOneOfMany ? withoutWholeClaims(words).trim() : words;
      if (left === "" && quote === "") continue;
      const key = `${place.path}\n${String(place.startLine)}\n${String(place.endLine)}`;
      if (!places.has(key)) places.set(key, { place, words: left, quote });
    }
  }
  if (places.size > 0) return [...places.values()].sort(byPlace).map(markdownOf).join("\n\n");
  const said = (verdict: ShardVerdict): string[] =>
    answers.filter((one) => verdictOf(one) === verdict && one.answer.trim() !== "").map(({ answer }) => answer.trim());
  const unproven = [...new Set(said("unproven"))];
  return unproven.length > 0 ? unproven.join("\n\n") : (said("nothing")[0] ?? "");
}

/** A quote that is there, or a path that is. */
function isProof(citation: Citation): boolean {
  const { kind, status, path } = citation;
  return isFound(citation) && path !== "" && (kind === "block" || status === "verified");
}

/** Each quote with the words before it; without a quote, each paragraph that names a file. */
function findingsOf({ answer, citations }: ShardAnswer): Finding[] {
  const blocks = citations.filter(({ kind }) => kind === "block");
  const findings: Finding[] = [];
  let wordsFrom = 0;
  for (const block of blocks) {
    const blockEnd = block.offset + block.length;
    const words = answer.slice(wordsFrom, block.offset).trim();
    wordsFrom = blockEnd;
    if (isProof(block)) findings.push({ place: block, words, quote: answer.slice(block.offset, blockEnd) });
  }
  if (findings.length > 0) return findings;
  if (refusedName(answer) !== undefined) return [];
  for (const paragraph of paragraphsOf(answer)) {
    const named = citations.find(
      (citation) =>
        citation.kind === "path" &&
        isProof(citation) &&
        citation.offset >= paragraph.start &&
        citation.offset < paragraph.end,
    );
    if (named !== undefined) {
      findings.push({ place: named, words: answer.slice(paragraph.start, paragraph.end).trim(), quote: "" });
    }
  }
  return findings;
}

/** The files of which something was found, whole: what the merged answer is checked against. */
export function foundFiles(shards: readonly Shard[], answers: readonly ShardAnswer[]): CheckedFile[] {
  const found = new Set(answers.flatMap(({ citations }) => citations.filter(isProof).map(({ path }) => path)));
  const files = new Map<string, CheckedFile>();
  for (const { file, whole } of shards.flatMap((shard) => shard.files)) {
    if (found.has(file.path)) files.set(file.path, { file, path: file.path, text: whole });
  }
  return [...files.values()];
}

/** Begins with the place as it was found, whatever the words after it say; a name that no code span can hold is left to them. */
function markdownOf({ place: { path, startLine, endLine }, words, quote }: Finding): string {
  const lines = startLine === 0 ? "" : `:${String(startLine)}${endLine > startLine ? `-${String(endLine)}` : ""}`;
  const heading = /[`\p{Cc}]/u.test(path) ? "" : `\`${path}${lines}\``;
  return [heading, words, quote].filter((part) => part !== "").join("\n\n");
}

function byPlace({ place: a }: Finding, { place: b }: Finding): number {
  return comparePaths(a.path, b.path) || a.startLine - b.startLine || a.endLine - b.endLine;
}

function paragraphsOf(text: string): { readonly start: number; readonly end: number }[] {
  return [...text.matchAll(/[^\n][^]*?(?=\n[ \t]*\n|$(?![^]))/g)].map(({ index, 0: all }) => ({
    start: index,
    end: index + all.length,
  }));
}
