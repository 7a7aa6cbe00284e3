// Owns: what is known about each file's content, so that a later question reads only what changed, and the texts kept in
// memory within a budget. Must never hand out the text of a file under a newer file's description, or the other way round.
import type { DropReason } from "../protocol/qa";
import { excludedByContent } from "./exclusions";
import type { Pace } from "./pace";
import type { RepoFileStat, RepoReader } from "./repoReader";
import { decodeText } from "./text";
import type { DecodedText } from "./text";

/** One file as it was scanned. The object stays the same as long as the content does, so it can key other caches. */
export interface ScannedFile {
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
  /** Why the file is not offered for reading; null: it is. */
  readonly excluded: DropReason | null;
  readonly hiddenCharacters: number;
  readonly removedCharacters: number;
}

interface Entry {
  readonly file: ScannedFile;
  readonly stat: RepoFileStat;
  readonly readAtMs: number;
}

const defaultBudgetBytes = 64 * 1024 * 1024;
/** A file written this shortly before it was read may be written again without a visible change of its time. */
const timeResolutionMs = 2_000;
const wide = /[^\0-\xff]/;
const noCharacters = { hiddenCharacters: 0, removedCharacters: 0 };

export class ContentCache {
  readonly #entries = new Map<string, Entry>();
  readonly #texts = new Map<ScannedFile, string>();
  #textBytes = 0;

  constructor(
    private readonly reader: RepoReader,
    private readonly budgetBytes = defaultBudgetBytes,
  ) {}

  /** Describes the file by its content, reading it only if its description on disk changed. Rejects as the reader does. */
  async examine(path: string, stat: RepoFileStat, pace: Pace): Promise<ScannedFile> {
    const known = this.#entries.get(path);
    if (known !== undefined && isUnchanged(known, stat)) return known.file;
    const readAtMs = Date.now();
    const bytes = await this.reader.readFile(path);
    await pace.breathe(); // Many files may have been read at the same moment.
    const decoded = decodeText(bytes);
    if (known !== undefined && this.#isKeptText(known.file, decoded)) {
      this.#entries.set(path, { file: known.file, stat, readAtMs }); // Touched, not changed.
      return known.file;
    }
    this.#forget(path);
    const excluded = decoded === null ? "binary" : excludedByContent(path, decoded.text);
    const { hiddenCharacters, removedCharacters } = decoded ?? noCharacters;
    const file: ScannedFile = { path, ...times(stat), excluded, hiddenCharacters, removedCharacters };
    this.#entries.set(path, { file, stat, readAtMs });
    if (decoded !== null && excluded === null) this.#keep(file, decoded.text);
    return file;
  }

  /** Describes a file that is left out whatever it holds, without reading it. */
  describeUnread(path: string, stat: RepoFileStat, excluded: DropReason): ScannedFile {
    const known = this.#entries.get(path);
    const sameStat = known?.stat.bytes === stat.bytes && known.stat.modifiedMs === stat.modifiedMs;
    if (known !== undefined && sameStat && known.file.excluded === excluded) return known.file;
    this.#forget(path);
    const file: ScannedFile = { path, ...times(stat), excluded, ...noCharacters };
    this.#entries.set(path, { file, stat, readAtMs: 0 });
    return file;
  }

  /** The text of a file described before; undefined when that content is gone, cannot be read, or must not be shown. */
  async text(file: ScannedFile): Promise<string | undefined> {
    const kept = this.#texts.get(file);
    if (kept !== undefined || file.excluded === "binary" || file.excluded === "secret") return kept;
    try {
      const stat = this.#entries.get(file.path)?.file === file ? this.#entries.get(file.path)?.stat : file;
      const now = await this.reader.stat(file.path);
      if (stat === undefined || now.bytes !== stat.bytes || now.modifiedMs !== stat.modifiedMs) return undefined;
      const text = decodeText(await this.reader.readFile(file.path))?.text;
      if (text === undefined || excludedByContent(file.path, text) === "secret") return undefined;
      if (file.excluded === null) this.#keep(file, text);
      return text;
    } catch {
      return undefined; // Gone or locked since the scan; the next scan lists it.
    }
  }

  /** Whether the file on disk still reads as `text`. */
  async isCurrent(file: ScannedFile, text: string): Promise<boolean> {
    try {
      const stat = await this.reader.stat(file.path);
      const known = this.#entries.get(file.path);
      if (known?.file === file && isUnchanged(known, stat)) return true;
      return decodeText(await this.reader.readFile(file.path))?.text === text;
    } catch {
      return false;
    }
  }

  /** Forgets every file that `keeps` refuses. */
  retain(keeps: (path: string) => boolean): void {
    for (const path of [...this.#entries.keys()]) if (!keeps(path)) this.#forget(path);
  }

  #isKeptText(file: ScannedFile, decoded: DecodedText | null): boolean {
    return decoded !== null && this.#texts.get(file) === decoded.text;
  }

  #forget(path: string): void {
    const known = this.#entries.get(path);
    if (known === undefined) return;
    this.#entries.delete(path);
    const text = this.#texts.get(known.file);
    if (text === undefined) return;
    this.#texts.delete(known.file);
    this.#textBytes -= textBytes(text);
  }

  /** First come, first kept: every use walks over all files, and dropping the oldest would then keep none of them. */
  #keep(file: ScannedFile, text: string): void {
    if (this.#texts.has(file) || this.#textBytes + textBytes(text) > this.budgetBytes) return;
    this.#texts.set(file, text);
    this.#textBytes += textBytes(text);
  }
}

function isUnchanged(entry: Entry, stat: RepoFileStat): boolean {
  return (
    entry.stat.bytes === stat.bytes &&
    entry.stat.modifiedMs === stat.modifiedMs &&
    stat.modifiedMs < entry.readAtMs - timeResolutionMs
  );
}

function times(stat: RepoFileStat): RepoFileStat {
  return { bytes: stat.bytes, modifiedMs: stat.modifiedMs };
}

/** As a JavaScript engine keeps it: one character that needs two bytes makes all of them take two. */
function textBytes(text: string): number {
  return wide.test(text) ? text.length * 2 : text.length;
}
