// Owns: what a repository holds right now: its text files and everything left out, with the reason; in short slices, stoppable.
// Must never leave anything out in silence.
import type { DropReason } from "../protocol/qa";
import { ContentCache } from "./contentCache";
import type { ScannedFile } from "./contentCache";
import { excludedByName, fileLimitBytes } from "./exclusions";
import { ruleFileNames } from "./ignoreRules";
import { mapConcurrently, Pace, throwIfCancelled } from "./pace";
import type { ChangeHistory, RepoReader } from "./repoReader";
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
  readonly history: ChangeHistory | null;
  /** The text as scanned; undefined when the file changed or went away since. */
  text(file: ScannedFile): Promise<string | undefined>;
  /** Whether the file on disk still reads as `text`. */
  isCurrent(file: ScannedFile, text: string): Promise<boolean>;
}

export interface ScanOptions {
  /** Files looked at so far, about ten times a second. */
  readonly onProgress?: ((files: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * The files that may have changed since the last scan, if that is known: only they are looked at. A file that came, went or
   * holds ignore rules makes it a scan of everything again.
   */
  readonly changed?: readonly string[] | undefined;
}

export interface ScanLimits {
  readonly files: number;
  readonly fileBytes: number;
  readonly searchedFileBytes: number;
}
const defaultLimits: ScanLimits = { files: 100_000, fileBytes: fileLimitBytes, searchedFileBytes: 4 * 1024 * 1024 };
const progressIntervalMs = 100;

/** What is known of every path, in the order of `paths`. */
interface Seen {
  readonly paths: readonly string[];
  /** Left out by name. */
  readonly dropped: readonly DroppedPath[];
  readonly outcomes: readonly (ScannedFile | DropReason)[];
  readonly history: ChangeHistory | null;
}

export class Scanner {
  readonly #cache: ContentCache;
  readonly #limits: ScanLimits;
  #seen: Seen | undefined;
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
    return (await this.#scanChanged(options)) ?? (await this.#scanAll(options));
  }

  async #scanAll(options: ScanOptions): Promise<RepositoryScan> {
    const reading = this.#history(options.signal);
    const { paths, dropped } = await walk(this.reader, this.#limits.files, options.signal);
    const outcomes = await this.#examineAll(paths, options);
    const present = new Set(paths);
    this.#cache.retain((path) => present.has(path));
    this.#seen = { paths, dropped, outcomes, history: await reading };
    return this.#result(this.#seen);
  }

  /** undefined: that does not do. */
  async #scanChanged({ changed, signal }: ScanOptions): Promise<RepositoryScan | undefined> {
    const seen = this.#seen;
    if (seen === undefined || changed === undefined) return undefined;
    const outcomes = [...seen.outcomes];
    for (const path of changed) {
      const index = seen.paths.indexOf(path);
      if (index < 0 || isRuleFile(path)) return undefined;
      try {
        outcomes[index] = await this.#examine(path);
      } catch {
        throwIfCancelled(signal);
        return undefined;
      }
    }
    this.#seen = { ...seen, outcomes };
    return this.#result(this.#seen);
  }

  #result({ paths, dropped: byName, outcomes, history }: Seen): RepositoryScan {
    const files: ScannedFile[] = [];
    const setAside: ScannedFile[] = [];
    const dropped = [...byName];
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
    const { name } = this.reader;
    const scan = { name, files, setAside, dropped, history, text: this.#text, isCurrent: this.#isCurrent };
    if (this.#last === undefined || !isSame(this.#last, scan)) this.#last = scan;
    return this.#last;
  }

  /** A repository whose history cannot be asked is one without. */
  async #history(signal: AbortSignal | undefined): Promise<ChangeHistory | null> {
    try {
      return (await this.reader.history?.(signal)) ?? null;
    } catch {
      return null;
    }
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

function isRuleFile(path: string): boolean {
  return ruleFileNames.some((name) => path === name || path.endsWith(`/${name}`));
}

function isSearchable(file: ScannedFile, limits: ScanLimits): boolean {
  return file.excluded !== "binary" && file.excluded !== "secret" && file.bytes <= limits.searchedFileBytes;
}

function isSame(a: RepositoryScan, b: RepositoryScan): boolean {
  const sameItems = <T>(left: readonly T[], right: readonly T[], equal: (x: T, y: T) => boolean): boolean =>
    left.length === right.length && left.every((item, index) => equal(item, right[index] as T));
  return (
    a.name === b.name &&
    a.history?.id === b.history?.id &&
    sameItems(a.files, b.files, (x, y) => x === y) &&
    sameItems(a.setAside, b.setAside, (x, y) => x === y) &&
    sameItems(a.dropped, b.dropped, (x, y) => x.path === y.path && x.reason === y.reason)
  );
}
