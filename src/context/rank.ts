// Owns: in which order files are worth reading when not all fit. Must depend on nothing but path and size, so that the same
// repository always gives the same bytes.
import type { ScannedFile } from "./contentCache";
import { extensionOf, isSource } from "./definitions";

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

interface Ranked {
  readonly file: ScannedFile;
  readonly key: readonly number[];
}

/** The most useful first: source before the rest, many files before few large ones, shallow before deep, then by path. */
export function rankFiles(files: readonly ScannedFile[]): ScannedFile[] {
  return files
    .map((file): Ranked => ({ file, key: [fileClass(file), sizeClass(file.bytes), depth(file.path)] }))
    .sort((a, b) => compareKeys(a.key, b.key) || comparePaths(a.file.path, b.file.path))
    .map(({ file }) => file);
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

function depth(path: string): number {
  return path.split("/").length;
}

function compareKeys(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
