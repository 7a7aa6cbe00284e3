// Owns: what a repository holds right now: its text files and everything left out, with the reason; in short slices, stoppable.
// Must never leave anything out in silence.
import type { DropReason } from "../protocol/qa";
import { ContentCache } from "./contentCache";
import type { ScannedFile } from "./contentCache";
import { excludedByName, fileLimitBytes } from "./exclusions";
import { ruleFileNames } from "./ignoreRules";
import { mapConcurrently, mergeInSlices, Pace, throwIfCancelled } from "./pace";
import { comparePaths } from "./repoReader";
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
const outcomesAtOnce = 1_024;

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
  #scanning: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly reader: RepoReader,
    options: { readonly cacheBytes?: number; readonly limits?: Partial<ScanLimits> } = {},
  ) {
    this.#cache = new ContentCache(reader, options.cacheBytes);
    this.#limits = { ...defaultLimits, ...options.limits };
  }

  /** Rejects with "repository-gone" when the root cannot be read and with "cancelled" when the signal says so. */
  async scan(options: ScanOptions = {}): Promise<RepositoryScan> {
    // One after the other: the outcome of one that began earlier must not take the place of a later one's.
    const before = this.#scanning;
    const scanning = before
      .catch(() => undefined)
      .then(async () => {
        throwIfCancelled(options.signal);
        return (await this.#scanChanged(options)) ?? (await this.#scanAll(options));
      });
    this.#scanning = scanning;
    return scanning;
  }

  async #scanAll(options: ScanOptions): Promise<RepositoryScan> {
    const reading = this.#history(options.signal);
    const { paths, dropped } = await walk(this.reader, this.#limits.files, options.signal);
    const pace = new Pace(options.signal);
    const outcomes = await this.#examineAll(paths, options, pace);
    const present = new Set(paths);
    this.#cache.retain((path) => present.has(path));
    this.#seen = { paths, dropped, outcomes, history: await reading };
    return this.#result(this.#seen, pace);
  }

  /** undefined: that does not do. */
  async #scanChanged({ changed, signal }: ScanOptions): Promise<RepositoryScan | undefined> {
    const seen = this.#seen;
    if (seen === undefined || this.#last === undefined || changed === undefined) return undefined;
    const pace = new Pace(signal);
    const outcomes = [...seen.outcomes];
    for (const path of changed) {
      await pace.breathe();
      const index = placeOf(path, seen.paths);
      if (index === undefined || isRuleFile(path)) return undefined;
      try {
        outcomes[index] = await this.#examine(path, pace);
      } catch {
        throwIfCancelled(signal);
        return undefined;
      }
    }
    this.#seen = { ...seen, outcomes };
    return this.#result(this.#seen, pace);
  }

  /** The last scan itself, if this one saw the same. */
  async #result(seen: Seen, pace: Pace): Promise<RepositoryScan> {
    const { paths, outcomes, history } = seen;
    const files: ScannedFile[] = [];
    const setAside: ScannedFile[] = [];
    const leftOut: DroppedPath[] = [];
    for (const [index, outcome] of outcomes.entries()) {
      if (index % outcomesAtOnce === 0) await pace.breathe();
      if (typeof outcome !== "string" && outcome.excluded === null) {
        files.push(outcome);
        continue;
      }
      const reason = typeof outcome === "string" ? outcome : (outcome.excluded as DropReason);
      leftOut.push({ path: paths[index] as string, reason });
      if (typeof outcome !== "string" && isSearchable(outcome, this.#limits)) setAside.push(outcome);
    }
    const byPath = (a: DroppedPath, b: DroppedPath): number => comparePaths(a.path, b.path);
    const dropped = await mergeInSlices(seen.dropped, leftOut, byPath, pace);
    const { name } = this.reader;
    const scan = { name, files, setAside, dropped, history, text: this.#text, isCurrent: this.#isCurrent };
    if (this.#last === undefined || !(await isSame(this.#last, scan, pace))) this.#last = scan;
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

  async #examineAll(paths: readonly string[], options: ScanOptions, pace: Pace): Promise<(ScannedFile | DropReason)[]> {
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
        return await this.#examine(path, pace);
      } catch {
        throwIfCancelled(options.signal);
        return "unreadable";
      }
    });
    options.onProgress?.(seen);
    return outcomes;
  }

  async #examine(path: string, pace: Pace): Promise<ScannedFile | DropReason> {
    const byName = excludedByName(path);
    if (byName === "secret" || byName === "binary") return byName;
    const stat = await this.reader.stat(path);
    if (byName !== null) return this.#cache.describeUnread(path, stat, byName);
    if (stat.bytes > this.#limits.fileBytes) return this.#cache.describeUnread(path, stat, "too-large");
    return this.#cache.examine(path, stat, pace);
  }
}

function isRuleFile(path: string): boolean {
  return ruleFileNames.some((name) => path === name || path.endsWith(`/${name}`));
}

function isSearchable(file: ScannedFile, limits: ScanLimits): boolean {
  return file.excluded !== "binary" && file.excluded !== "secret" && file.bytes <= limits.searchedFileBytes;
}

/** `paths` are sorted. */
function placeOf(path: string, paths: readonly string[]): number | undefined {
  let [low, high] = [0, paths.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (comparePaths(paths[middle] as string, path) < 0) low = middle + 1;
    else high = middle;
  }
  return paths[low] === path ? low : undefined;
}

async function isSame(a: RepositoryScan, b: RepositoryScan, pace: Pace): Promise<boolean> {
  return (
    a.name === b.name &&
    a.history?.id === b.history?.id &&
    (await hasSameItems(a.files, b.files, (x, y) => x === y, pace)) &&
    (await hasSameItems(a.setAside, b.setAside, (x, y) => x === y, pace)) &&
    (await hasSameItems(a.dropped, b.dropped, (x, y) => x.path === y.path && x.reason === y.reason, pace))
  );
}

async function hasSameItems<T>(
  a: readonly T[],
  b: readonly T[],
  equal: (x: T, y: T) => boolean,
  pace: Pace,
): Promise<boolean> {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) {
    if (index % outcomesAtOnce === 0) await pace.breathe();
    if (!equal(a[index] as T, b[index] as T)) return false;
  }
  return true;
}
