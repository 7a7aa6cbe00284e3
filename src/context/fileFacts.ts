// Owns: what is known of each file beyond its text, learned once per content: the names it defines and uses, its outline, and
// whether it holds a secret. Must never keep a text, and never say "no secret" of a text that was not looked at.
import type { ScannedFile } from "./contentCache";
import { isSource } from "./definitions";
import { linesHere } from "./lineSyntax";
import type { SyntaxReader } from "./lineSyntax";
import { mapConcurrently, Pace } from "./pace";
import type { RepositoryScan } from "./scan";
import { secretsHere } from "./secrets";
import type { SecretFinder } from "./secrets";

/** Names as numbers: ten thousand files use some million. */
export interface FileNames {
  readonly defined: Uint32Array;
  readonly used: Uint32Array;
  /** How often each of `used` stands in the file. */
  readonly counts: Uint16Array;
  /** 0: the file cannot be outlined. */
  readonly outlineCharacters: number;
}

export interface FactSources {
  readonly syntax?: SyntaxReader;
  readonly secrets?: SecretFinder;
}

/** Enough to keep another thread busy, few enough to stop at once. */
const filesAtOnce = 8;
const shortestName = 3;
const mostCounted = 0xffff;
const noNames: FileNames = {
  defined: new Uint32Array(),
  used: new Uint32Array(),
  counts: new Uint16Array(),
  outlineCharacters: 0,
};

export class FileFacts {
  readonly #syntax: SyntaxReader;
  readonly #secrets: SecretFinder;
  readonly #names = new WeakMap<ScannedFile, FileNames>();
  readonly #outlines = new WeakMap<ScannedFile, string>();
  readonly #secretFiles = new WeakMap<ScannedFile, boolean>();
  readonly #latest = new Map<string, FileNames>();
  readonly #ids = new Map<string, number>();

  constructor({ syntax = linesHere, secrets = secretsHere }: FactSources = {}) {
    this.#syntax = syntax;
    this.#secrets = secrets;
  }

  /** Every number in FileNames is smaller. */
  get nameCount(): number {
    return this.#ids.size;
  }

  /** undefined: not learned yet. */
  names(file: ScannedFile): FileNames | undefined {
    return isSource(file.path) ? this.#names.get(file) : noNames;
  }

  /** Whether it is known to hold a secret. */
  isSecret(file: ScannedFile): boolean {
    return this.#secretFiles.get(file) === true;
  }

  isLearned(file: ScannedFile): boolean {
    return this.names(file) !== undefined && this.#secretFiles.has(file);
  }

  /** Learns all that is not known yet. A file whose text went away since the scan stays unknown but for that it has no names. */
  async learn(scan: RepositoryScan, files: readonly ScannedFile[], options: LearnOptions = {}): Promise<void> {
    const { signal, onProgress } = options;
    const unknown = files.filter((file) => !this.isLearned(file));
    const pace = new Pace(signal);
    let done = files.length - unknown.length;
    await mapConcurrently(unknown, filesAtOnce, async (file) => {
      await pace.breathe();
      const text = await scan.text(file);
      if (text === undefined) this.#names.set(file, noNames);
      else await Promise.all([this.findSecret(file, text, signal), this.#read(file, text, signal)]);
      onProgress?.(++done, files.length);
    });
  }

  async findSecret(file: ScannedFile, text: string, signal?: AbortSignal): Promise<boolean> {
    const known = this.#secretFiles.get(file);
    if (known !== undefined) return known;
    const isSecret = await this.#secrets.hasSecret(file.path, text, signal);
    this.#secretFiles.set(file, isSecret);
    return isSecret;
  }

  /** "": it has none. */
  async outline(file: ScannedFile, text: string, signal?: AbortSignal): Promise<string> {
    if (!isSource(file.path)) return "";
    const known = this.#outlines.get(file);
    if (known !== undefined) return known;
    const { outline } = await this.#syntax.read(file.path, text, signal);
    this.#outlines.set(file, outline);
    return outline;
  }

  async #read(file: ScannedFile, text: string, signal: AbortSignal | undefined): Promise<void> {
    if (!isSource(file.path) || this.#names.has(file)) return;
    const { definitions, references, outline } = await this.#syntax.read(file.path, text, signal);
    const defined = [...new Set(definitions.map(({ name }) => name))];
    const used = [...references].filter(([name]) => name.length >= shortestName);
    const names: FileNames = {
      defined: Uint32Array.from(defined, (name) => this.#id(name)),
      used: Uint32Array.from(used, ([name]) => this.#id(name)),
      counts: Uint16Array.from(used, ([, count]) => Math.min(count, mostCounted)),
      outlineCharacters: outline.length,
    };
    // An edit inside a body changes no name: then the object stays the same, and with it all that was made of it.
    const before = this.#latest.get(file.path);
    const kept = before !== undefined && isSameNames(before, names) ? before : names;
    this.#latest.set(file.path, kept);
    this.#names.set(file, kept);
  }

  #id(name: string): number {
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    this.#ids.set(name, this.#ids.size);
    return this.#ids.size - 1;
  }
}

export interface LearnOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((files: number, of: number) => void) | undefined;
}

function isSameNames(a: FileNames, b: FileNames): boolean {
  return (
    a.outlineCharacters === b.outlineCharacters &&
    isSameNumbers(a.defined, b.defined) &&
    isSameNumbers(a.used, b.used) &&
    isSameNumbers(a.counts, b.counts)
  );
}

function isSameNumbers(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}
