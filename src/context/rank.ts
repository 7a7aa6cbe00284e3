// Owns: how much a file is worth reading when not all fit: its kind, how much other files lean on it, and how lately it changed.
// Must depend on the repository alone, never on a question, a clock or what is open.
import type { ScannedFile } from "./contentCache";
import { extensionOf, isSource } from "./definitions";
import type { FileFacts } from "./fileFacts";
import type { Pace } from "./pace";
import type { ChangeHistory } from "./repoReader";

const testPath =
  /(?:^|\/)(?:tests?|__tests__|specs?|e2e|fixtures?|__mocks__|mocks?|testdata|benchmarks?|bench)\/|(?:[._-](?:test|spec|bench)\.[^/]+|(?:^|\/)test_[^/]+\.py|_test\.(?:go|py|rb|cc|cpp))$/i;
const examplePath = /(?:^|\/)(?:examples?|demos?|samples?|playground|docs?|website|scripts?|tools?|\.github)\//i;
const prose = new Set(["md", "mdx", "markdown", "rst", "adoc", "txt"]);
const declarations = /\.d\.[mc]?ts$/;
const overview = /^(?:[^/]+\/)?readme(?:\.[a-z]+)?$/i;

/** Asked again and again of every file, and a ScannedFile stays the same as long as its content does. */
const knownClasses = new WeakMap<ScannedFile, number>();

/** 0: source; 1: declarations, examples and scripts; 2: the rest (configuration, styles, data); 3: prose; 4: tests; 5: empty. */
export function fileClass(file: ScannedFile): number {
  const known = knownClasses.get(file);
  if (known !== undefined) return known;
  const kind = classOf(file);
  knownClasses.set(file, kind);
  return kind;
}

function classOf(file: ScannedFile): number {
  if (file.bytes === 0) return 5;
  if (testPath.test(file.path)) return 4;
  if (prose.has(extensionOf(file.path))) return 3;
  if (!isSource(file.path)) return 2;
  return declarations.test(file.path) || examplePath.test(file.path) ? 1 : 0;
}

const classWeights = [1, 0.5, 0.25, 0.25, 0.1, 0];

/** What a file is worth for its kind. */
export function fileWeight(file: ScannedFile): number {
  return overview.test(file.path) ? 1 : (classWeights[fileClass(file)] ?? 0);
}

/** What a file costs besides its text: tags, path, and its place in the reader's attention. */
export const overheadBytes = 256;
/** Costs for the worth are told apart in steps of a tenth; equal ones come by path. So small changes move little. */
const stepsPerOctave = 7;

export function costStep(bytes: number, value: number): number {
  return value === 0 ? Infinity : Math.round(stepsPerOctave * Math.log2((bytes + overheadBytes) / value));
}

/** What a file is worth that nothing leans on: the commands and entry points of a program are such files. */
const unusedWorth = 0.3;
/** The most that a late change adds. */
const changeWorth = 0.3;
/** Changes further back than this many do not count as late. */
const lateChanges = 256;

/** One number a file, in their order. `facts` null: by kind and history alone. */
export async function fileValues(
  files: readonly ScannedFile[],
  facts: FileFacts | null,
  history: ChangeHistory | null,
  pace: Pace,
): Promise<Float64Array> {
  const weights = new Float64Array(files.length);
  for (const [index, file] of files.entries()) {
    if (index % 256 === 0) await pace.breathe();
    weights[index] = fileWeight(file);
  }
  const leaned = (await facts?.references(files, weights, pace)) ?? null;
  const lateness = latenessIn(files, history);
  return weights.map((weight, index) => {
    const references = Math.sqrt(leaned?.[index] ?? 1);
    return weight * (unusedWorth + references + changeWorth * lateness(index));
  });
}

/** 1 for what the last commit changed, falling to 0 with the number of commits since, whatever time passed. */
function latenessIn(files: readonly ScannedFile[], history: ChangeHistory | null): (index: number) => number {
  if (history === null) return () => 0;
  const times = files.map(({ path }) => history.changedAt.get(path));
  const distinct = [...new Set(times.filter((time) => time !== undefined))].sort((a, b) => b - a);
  const age = new Map(distinct.map((time, commits) => [time, commits]));
  return (index) => {
    const time = times[index];
    const commits = time === undefined ? lateChanges : (age.get(time) ?? lateChanges);
    return Math.max(0, 1 - Math.log2(1 + commits) / Math.log2(lateChanges));
  };
}
