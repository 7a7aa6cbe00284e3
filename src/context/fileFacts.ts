// Owns: what is known of each file beyond its text, learned once per content: the names it defines and uses, its outline, and
// whether it holds a secret. Must never keep a text, and never say "no secret" of a text that was not looked at.
import type { ScannedFile } from "./contentCache";
import { extensionOf, isSource } from "./definitions";
import { mapConcurrently, Pace } from "./pace";
import { chooseParsed } from "./parseChoice";
import type { ParseChoice } from "./parseChoice";
import { isSameNumbers, ReferenceRanks } from "./referenceGraph";
import type { RepositoryScan } from "./scan";
import type { SecretFinder } from "./secrets";
import type { SyntaxReader } from "./syntax/fileSyntax";
import { syntaxOfLines } from "./syntax/lineParser";

/** Names as numbers: ten thousand files use some million. */
export interface FileNames {
  readonly defined: Uint32Array;
  readonly used: Uint32Array;
  /** About how often each of `used` stands in the file: once more or less seldom makes it another number. */
  readonly counts: Uint16Array;
  /** 0: the file cannot be outlined. */
  readonly outlineCharacters: number;
}

/** Where the looking is done; without `syntax` on this thread, by the shape of the lines. */
export interface FactSources {
  readonly syntax?: NameReader;
  readonly secrets: SecretFinder;
  /** See chooseParsed. */
  readonly parsedBytesAtMost?: number;
}

type NameReader = Pick<SyntaxReader, "read" | "readLines">;

const readLines: NameReader["readLines"] = (path, text) => Promise.resolve(syntaxOfLines(path, text));
const linesHere: NameReader = { read: readLines, readLines };

/** Outlines are kept up to so many characters in all; those of other files are made again when they are read. */
const outlineBudgetCharacters = 16 * 1024 * 1024;
/** Enough to keep another thread busy, few enough to stop at once. */
const filesAtOnce = 8;
const passedAtOnce = 1_024;
const shortestName = 3;
const noNames: FileNames = {
  defined: new Uint32Array(),
  used: new Uint32Array(),
  counts: new Uint16Array(),
  outlineCharacters: 0,
};

export class FileFacts {
  readonly #syntax: NameReader;
  readonly #secrets: SecretFinder;
  readonly #parsedBytesAtMost: number | undefined;
  readonly #learned = new WeakMap<ScannedFile, { readonly names: FileNames; readonly isParsed: boolean }>();
  readonly #outlines = new WeakMap<ScannedFile, string>();
  readonly #secretFiles = new WeakMap<ScannedFile, boolean>();
  readonly #latest = new Map<string, FileNames>();
  readonly #ids = new Map<string, number>();
  #outlineCharacters = 0;
  readonly #ranks = new ReferenceRanks();

  constructor({ syntax = linesHere, secrets, parsedBytesAtMost }: FactSources) {
    this.#syntax = syntax;
    this.#parsedBytesAtMost = parsedBytesAtMost;
    this.#secrets = secrets;
  }

  /** undefined: not learned yet. */
  names(file: ScannedFile): FileNames | undefined {
    return this.#learned.get(file)?.names;
  }

  /** Whether it is known to hold a secret. */
  isSecret(file: ScannedFile): boolean {
    return this.#secretFiles.get(file) === true;
  }

  /** Which of them are parsed for their names, when all are learned. */
  chooseParsed(files: readonly ScannedFile[], pace: Pace): Promise<ParseChoice> {
    return chooseParsed(files, pace, this.#parsedBytesAtMost);
  }

  /** Those of which something is not known, or not in the way that `isParsed` says. */
  async unlearned(files: readonly ScannedFile[], isParsed: ParseChoice, pace: Pace): Promise<ScannedFile[]> {
    const unlearned: ScannedFile[] = [];
    for (const [index, file] of files.entries()) {
      if (index % passedAtOnce === 0) await pace.breathe();
      if (!this.#areNamesKnown(file, isParsed(file)) || !this.#secretFiles.has(file)) unlearned.push(file);
    }
    return unlearned;
  }

  /** Learns all that is not known yet. A file whose text went away since the scan stays unknown but for that it has no names. */
  async learn(scan: RepositoryScan, files: readonly ScannedFile[], options: LearnOptions): Promise<void> {
    const { isParsed, signal } = options;
    const pace = new Pace(signal);
    await mapConcurrently(files, filesAtOnce, async (file) => {
      await pace.breathe();
      const text = await scan.text(file);
      const wanted = isParsed(file);
      if (text === undefined) this.#learned.set(file, { names: noNames, isParsed: wanted });
      else await Promise.all([this.findSecret(file, text, signal), this.#read(file, text, wanted, pace, signal)]);
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
    if (!hasSyntax(file.path)) return "";
    const known = this.#outlines.get(file);
    if (known !== undefined) return known;
    const { outline } = await this.#syntax.read(file.path, text, signal);
    this.#keepOutline(file, outline);
    return outline;
  }

  /**
   * How much the files lean on one another, in their order; null: not all of them are learned. `weights` as in ReferenceRanks.
   * Worked out again only when a name came or went, or is used about twice or half as often: most edits inside a body move no file.
   */
  async references(files: readonly ScannedFile[], weights: Float64Array, pace: Pace): Promise<Float64Array | null> {
    const names: FileNames[] = [];
    for (const file of files) {
      const known = this.names(file);
      if (known === undefined) return null;
      names.push(known);
    }
    return this.#ranks.rank(names, weights, this.#ids.size, pace);
  }

  #areNamesKnown(file: ScannedFile, isParsed: boolean): boolean {
    const learned = this.#learned.get(file);
    return learned !== undefined && (learned.isParsed === isParsed || learned.names === noNames);
  }

  async #read(
    file: ScannedFile,
    text: string,
    isParsed: boolean,
    pace: Pace,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#areNamesKnown(file, isParsed)) return;
    if (!hasSyntax(file.path)) {
      this.#learned.set(file, { names: noNames, isParsed });
      return;
    }
    const read = isParsed ? "read" : "readLines";
    const { definitions, references, outline } = await this.#syntax[read](file.path, text, signal);
    await pace.breathe(); // The thread's answers come several at a time.
    // What a prompt shows is parsed in any case.
    if (isParsed) this.#keepOutline(file, outline);
    const defined = [...new Set(definitions.map(({ name }) => name))];
    const used = [...references].filter(([name]) => name.length >= shortestName);
    const names: FileNames = {
      defined: Uint32Array.from(defined, (name) => this.#id(name)),
      used: Uint32Array.from(used, ([name]) => this.#id(name)),
      counts: Uint16Array.from(used, ([, count]) => roughly(count)),
      outlineCharacters: outline.length,
    };
    // An edit inside a body changes no name: then the object stays the same, and with it all that was made of it.
    const before = this.#latest.get(file.path);
    const kept = before !== undefined && isSameNames(before, names) ? before : names;
    this.#latest.set(file.path, kept);
    this.#learned.set(file, { names: kept, isParsed });
  }

  /** A changed file's earlier outline goes with its ScannedFile; its share of the budget comes back with the next process. */
  #keepOutline(file: ScannedFile, outline: string): void {
    if (this.#outlineCharacters + outline.length > outlineBudgetCharacters) return;
    this.#outlineCharacters += outline.length;
    this.#outlines.set(file, outline);
  }

  #id(name: string): number {
    const known = this.#ids.get(name);
    if (known !== undefined) return known;
    this.#ids.set(name, this.#ids.size);
    return this.#ids.size - 1;
  }
}

/** Whether there is something to parse: code, or the headings of Markdown. */
function hasSyntax(path: string): boolean {
  return isSource(path) || /^(?:md|mdx|markdown)$/.test(extensionOf(path));
}

export interface LearnOptions {
  /** Of the others the names are read from the shape of the lines. */
  readonly isParsed: ParseChoice;
  readonly signal?: AbortSignal | undefined;
}

/** The power of two below it, of what fits 16 bits. */
function roughly(count: number): number {
  return 1 << Math.min(15, 31 - Math.clz32(count));
}

function isSameNames(a: FileNames, b: FileNames): boolean {
  return (
    a.outlineCharacters === b.outlineCharacters &&
    isSameNumbers(a.defined, b.defined) &&
    isSameNumbers(a.used, b.used) &&
    isSameNumbers(a.counts, b.counts)
  );
}
