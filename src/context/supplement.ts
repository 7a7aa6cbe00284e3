// Owns: which files a question needs besides the base: those the user pinned, those that define what it names, those that use it.
// Must never change the base or the question.
import type { ScannedFile } from "./contentCache";
import { namesInCode, namesInQuestion } from "./identifiers";
import { fileClass } from "./rank";
import { comparePaths } from "./repoReader";
import type { RepositoryScan } from "./scan";
import { searchNames } from "./search";
import type { FileHits } from "./search";

export interface WantedFiles {
  /** Without these the question cannot be answered; the best first. */
  readonly required: readonly ScannedFile[];
  /** These help, while there is room; the best first. */
  readonly helpful: readonly ScannedFile[];
}

/** More files than this that share a name or a line do not all help. */
const filesPerName = 3;
const helpfulAtMost = 12;
/** A name in more files than this tells nothing about any of them. */
const commonInFiles = 40;

export async function wantedFiles(
  scan: RepositoryScan,
  files: readonly ScannedFile[],
  question: string,
  inBase: ReadonlySet<ScannedFile>,
  signal?: AbortSignal,
): Promise<WantedFiles> {
  const { certain, possible, code } = namesInQuestion(question);
  const quoted = code.map(longestLine).filter((line) => line !== "");
  const inCode = code.flatMap(namesInCode);
  const found = await searchNames(scan, files, [...new Set([...certain, ...possible, ...quoted, ...inCode])], signal);
  const required = new Set<ScannedFile>();
  for (const line of quoted) for (const { file } of (found.get(line) ?? []).slice(0, filesPerName)) required.add(file);
  for (const name of certain) {
    const definer = bestDefiner(found.get(name) ?? [], inBase);
    if (definer !== undefined) required.add(definer);
    for (const file of namedByPath(files, name)) required.add(file);
  }
  for (const name of possible) {
    const definers = found.get(name)?.filter(({ definition }) => definition !== undefined) ?? [];
    // A plain word that few files define is a name; one that many define is more likely just a word.
    const isName = certain.length === 0 && definers.length <= filesPerName;
    if (isName) for (const { file, definition } of definers) if (definition?.kind !== "value") required.add(file);
  }
  const scores = new Map<ScannedFile, number>();
  const defined = (name: string): boolean => (found.get(name) ?? []).some(({ definition }) => definition !== undefined);
  const asked = [...certain, ...possible.filter(defined)];
  for (const name of asked) addScores(scores, found.get(name) ?? [], files.length, 1);
  for (const name of inCode) addScores(scores, found.get(name) ?? [], files.length, 0.25);
  const helpful = [...scores]
    .filter(([file]) => !required.has(file))
    .sort(([a, scoreA], [b, scoreB]) => scoreB - scoreA || comparePaths(a.path, b.path))
    .slice(0, helpfulAtMost)
    .map(([file]) => file);
  return { required: [...required], helpful };
}

/** Source before tests, the left margin before nested code; of those one that is read anyway, else the file that says the name most often. */
function bestDefiner(hits: readonly FileHits[], inBase: ReadonlySet<ScannedFile>): ScannedFile | undefined {
  const definers = hits.filter(({ definition }) => definition !== undefined);
  const [best] = definers.sort(
    (a, b) =>
      fileClass(a.file) - fileClass(b.file) ||
      Number(b.definition?.isTopLevel) - Number(a.definition?.isTopLevel) ||
      Number(inBase.has(b.file)) - Number(inBase.has(a.file)) ||
      b.hits - a.hits ||
      comparePaths(a.file.path, b.file.path),
  );
  return best?.file;
}

/** The question may name a file instead of a symbol. */
function namedByPath(files: readonly ScannedFile[], name: string): ScannedFile[] {
  if (!/[./]/.test(name)) return [];
  const ending = `/${name.replace(/^\.?\//, "")}`;
  return files.filter(({ path }) => `/${path}`.endsWith(ending)).slice(0, filesPerName);
}

function addScores(
  scores: Map<ScannedFile, number>,
  hits: readonly FileHits[],
  fileCount: number,
  weight: number,
): void {
  if (hits.length > commonInFiles) return;
  const rarity = Math.log(1 + fileCount / Math.max(1, hits.length));
  for (const { file, hits: count, definition } of hits) {
    const value = weight * rarity * (1 + Math.log2(count)) * (definition === undefined ? 1 : 4);
    scores.set(file, (scores.get(file) ?? 0) + value);
  }
}

function longestLine(code: string): string {
  const longest = code.split("\n").reduce((best, line) => (line.trim().length > best.length ? line.trim() : best), "");
  return longest.length >= 8 ? longest : "";
}
