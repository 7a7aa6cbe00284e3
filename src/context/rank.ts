// Owns: in which order files are worth reading when not all fit. Must depend on nothing but path and size, so that the same
// repository always gives the same bytes.
import type { ScannedFile } from "./contentCache";
import { extensionOf, isSource } from "./definitions";
import type { Pace } from "./pace";

const smallBytes = 12 * 1024;
const mediumBytes = 40 * 1024;

const testPath =
  /(?:^|\/)(?:tests?|__tests__|specs?|e2e|fixtures?|__mocks__|mocks?|testdata|benchmarks?|bench)\/|(?:[._-](?:test|spec|bench)\.[^/]+|(?:^|\/)test_[^/]+\.py|_test\.(?:go|py|rb|cc|cpp))$/i;
const examplePath = /(?:^|\/)(?:examples?|demos?|samples?|playground|docs?|website|scripts?|tools?|\.github)\//i;
const prose = new Set(["md", "mdx", "markdown", "rst", "adoc", "txt"]);
const declarations = /\.d\.[mc]?ts$/;

/** 0: source; 1: declarations, examples and scripts; 2: the rest (configuration, styles, data); 3: prose; 4: tests; 5: empty. */
export function fileClass(file: ScannedFile): number {
  if (file.bytes === 0) return 5;
  if (testPath.test(file.path)) return 4;
  if (prose.has(extensionOf(file.path))) return 3;
  if (!isSource(file.path)) return 2;
  return declarations.test(file.path) || examplePath.test(file.path) ? 1 : 0;
}

/** The pace is looked at once in so many files. */
const filesAtOnce = 256;

/**
 * The most useful first: source before the rest, many files before few large ones, shallow before deep, then by path.
 * `files` come sorted by path, so they only have to be laid out by rank: sorting tens of thousands would hold the thread.
 */
export async function rankFiles(files: readonly ScannedFile[], pace: Pace): Promise<ScannedFile[]> {
  const byRank = new Map<number, ScannedFile[]>();
  for (const [index, file] of files.entries()) {
    if (index % filesAtOnce === 0) await pace.breathe();
    const rank = rankOf(file);
    const same = byRank.get(rank);
    if (same === undefined) byRank.set(rank, [file]);
    else same.push(file);
  }
  return [...byRank].sort(([a], [b]) => a - b).flatMap(([, same]) => same);
}

/** The order in the prompt: source first, folders kept together. What comes last is given up first. */
export function promptOrder(a: ScannedFile, b: ScannedFile): number {
  return fileClass(a) - fileClass(b) || comparePaths(a.path, b.path);
}

export function comparePaths(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function sizeClass(bytes: number): number {
  return bytes <= smallBytes ? 0 : bytes <= mediumBytes ? 1 : 2;
}

/** Class, size and depth as the digits of one number. */
function rankOf(file: ScannedFile): number {
  const depth = Math.min(file.path.split("/").length, 9_999);
  return fileClass(file) * 100_000 + sizeClass(file.bytes) * 10_000 + depth;
}
