// Owns: what a repository holds right now: its text files and everything left out, with the reason; in short slices, stoppable.
// Must never leave anything out in silence.
import type { DropReason } from "../protocol/qa";
import { ContentCache } from "./contentCache";
import type { ScannedFile } from "./contentCache";
import { excludedByName, fileLimitBytes } from "./exclusions";
import { mapConcurrently, Pace, throwIfCancelled } from "./pace";
import type { RepoReader } from "./repoReader";
import { concurrentReads, walk } from "./walk";
import type { DroppedPath } from "./walk";

/** What one scan saw. The object is the last scan's own when nothing changed. */
export interface RepositoryScan {
  readonly name: string;
  /** Files offered for reading, sorted by path. */
  readonly files: readonly ScannedFile[];
  /** Text left out only for its form (generated, minified, too large, a lock file): searched, and read when the user says so. */
  readonly setAside: readonly ScannedFile[];
  /** Everything that is not in `files`, sorted by path. */
  readonly dropped: readonly DroppedPath[];
  /** The text as scanned; undefined when the file changed or went away since. */
  text(file: ScannedFile): Promise<string | undefined>;
  /** Whether the file on disk still reads as `text`. */
  isCurrent(file: ScannedFile, text: string): Promise<boolean>;
}

export interface ScanOptions {
  /** Files looked at so far, about ten times a second. */
  readonly onProgress?: ((files: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ScanLimits {
  readonly files: number;
  readonly fileBytes: number;
  readonly searchedFileBytes: number;
}
const defaultLimits: ScanLimits = { files: 100_000, fileBytes: fileLimitBytes, searchedFileBytes: 4 * 1024 * 1024 };
const progressIntervalMs = 100;

export class Scanner {
  readonly #cache: ContentCache;
  readonly #limits: ScanLimits;
  #last: RepositoryScan | undefined;

  constructor(
    private readonly reader: RepoReader,
    options: { readonly cacheBytes?: number; readonly limits?: Partial<ScanLimits> } = {},
  ) {
    this.#cache = new ContentCache(reader, options.cacheBytes);
    this.#limits = { ...defaultLimits, ...options.limits };
  }

  /** Rejects with "repository-gone" when the root cannot be read and with "cancelled" when the signal says so. */
  async scan(options: ScanOptions = {}): Promise<RepositoryScan> {
    const { paths, dropped } = await walk(this.reader, this.#limits.files, options.signal);
    const outcomes = await this.#examineAll(paths, options);
    const files: ScannedFile[] = [];
    const setAside: ScannedFile[] = [];
    for (const [index, outcome] of outcomes.entries()) {
      if (typeof outcome !== "string" && outcome.excluded === null) {
        files.push(outcome);
        continue;
      }
      const reason = typeof outcome === "string" ? outcome : (outcome.excluded as DropReason);
      dropped.push({ path: paths[index] as string, reason });
      if (typeof outcome !== "string" && isSearchable(outcome, this.#limits)) setAside.push(outcome);
    }
    dropped.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
    const present = new Set(paths);
    this.#cache.retain((path) => present.has(path));
    const scan = { name: this.reader.name, files, setAside, dropped, text: this.#text, isCurrent: this.#isCurrent };
    if (this.#last === undefined || !isSame(this.#last, scan)) this.#last = scan;
    return this.#last;
  }

  readonly #text = (file: ScannedFile): Promise<string | undefined> => this.#cache.text(file);
  readonly #isCurrent = (file: ScannedFile, text: string): Promise<boolean> => this.#cache.isCurrent(file, text);

  async #examineAll(paths: readonly string[], options: ScanOptions): Promise<(ScannedFile | DropReason)[]> {
    const pace = new Pace(options.signal);
    let seen = 0;
    let reportedAt = performance.now();
    const outcomes = await mapConcurrently(paths, concurrentReads, async (path) => {
      await pace.breathe();
      seen++;
      if (performance.now() - reportedAt >= progressIntervalMs) {
        reportedAt = performance.now();
        options.onProgress?.(seen);
      }
      try {
        return await this.#examine(path);
      } catch {
        throwIfCancelled(options.signal);
        return "unreadable";
      }
    });
    options.onProgress?.(seen);
    return outcomes;
  }

  async #examine(path: string): Promise<ScannedFile | DropReason> {
    const byName = excludedByName(path);
    if (byName === "secret" || byName === "binary") return byName;
    const stat = await this.reader.stat(path);
    if (byName !== null) return this.#cache.describeUnread(path, stat, byName);
    if (stat.bytes > this.#limits.fileBytes) return this.#cache.describeUnread(path, stat, "too-large");
    return this.#cache.examine(path, stat);
  }
}

function isSearchable(file: ScannedFile, limits: ScanLimits): boolean {
  return file.excluded !== "binary" && file.excluded !== "secret" && file.bytes <= limits.searchedFileBytes;
}

function isSame(a: RepositoryScan, b: RepositoryScan): boolean {
  const sameItems = <T>(left: readonly T[], right: readonly T[], equal: (x: T, y: T) => boolean): boolean =>
    left.length === right.length && left.every((item, index) => equal(item, right[index] as T));
  return (
    a.name === b.name &&
    sameItems(a.files, b.files, (x, y) => x === y) &&
    sameItems(a.setAside, b.setAside, (x, y) => x === y) &&
    sameItems(a.dropped, b.dropped, (x, y) => x.path === y.path && x.reason === y.reason)
  );
}
