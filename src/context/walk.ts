// Owns: the walk over a repository's folders by name alone: ignore files, links, limits. Must never read a file other than
// the ignore files, and never follow a symbolic link.
import { failure } from "../protocol/errors";
import type { DropReason } from "../protocol/qa";
import { IgnoreRules, ruleFileNames } from "./ignoreRules";
import { mapConcurrently, Pace, sortInSlices, throwIfCancelled } from "./pace";
import { comparePaths } from "./repoReader";
import type { RepoEntry, RepoReader } from "./repoReader";
import { decodeText } from "./text";

export interface DroppedPath {
  /** A file, or a whole folder when it ends with "/". */
  readonly path: string;
  readonly reason: DropReason;
}

export interface WalkResult {
  /** Files that no name rule left out, sorted. */
  readonly paths: readonly string[];
  /** Sorted. */
  readonly dropped: readonly DroppedPath[];
}

export const concurrentReads = 16;
/** The rules of a repository may be many for each name. */
const namesAtOnce = 64;
const ruleFileLimitBytes = 1024 * 1024;
// A name with control characters would break out of the line that names the file to the model.
const controlCharacter = /\p{Cc}/u;

interface Folder {
  readonly path: string;
  readonly rules: IgnoreRules;
}

/** Goes down level by level in sorted order, so that a limit always cuts at the same place. */
export async function walk(reader: RepoReader, fileLimit: number, signal?: AbortSignal): Promise<WalkResult> {
  const pace = new Pace(signal);
  const paths: string[] = [];
  const dropped: DroppedPath[] = [];
  let level: Folder[] = [{ path: "", rules: IgnoreRules.defaults }];
  while (level.length > 0) {
    const listed = await mapConcurrently(level, concurrentReads, async (folder) => {
      await pace.breathe();
      return list(reader, folder, pace, signal);
    });
    const next: Folder[] = [];
    for (const [index, folder] of level.entries()) {
      const listing = listed[index];
      if (listing === undefined) dropped.push({ path: `${folder.path}/`, reason: "unreadable" });
      else if (paths.length >= fileLimit) dropped.push({ path: `${folder.path}/`, reason: "file-limit" });
      else await sortOut(listing, { fileLimit, paths, next, dropped }, pace);
    }
    level = next;
  }
  return {
    paths: await sortInSlices(paths, comparePaths, pace),
    dropped: await sortInSlices(dropped, (a, b) => comparePaths(a.path, b.path), pace),
  };
}

interface Listing {
  readonly folder: Folder;
  readonly entries: readonly RepoEntry[];
}

async function list(
  reader: RepoReader,
  folder: Folder,
  pace: Pace,
  signal: AbortSignal | undefined,
): Promise<Listing | undefined> {
  let entries: readonly RepoEntry[];
  try {
    entries = await reader.readDirectory(folder.path);
  } catch (error) {
    throwIfCancelled(signal);
    if (folder.path === "") throw failure("repository-gone", reader.name, "", String(error));
    return undefined;
  }
  const texts: string[] = [];
  for (const name of ruleFileNames) {
    if (!entries.some((entry) => entry.name === name && entry.kind === "file")) continue;
    const text = await readRules(reader, join(folder.path, name));
    if (text !== undefined) texts.push(text);
  }
  const sorted = await sortInSlices(entries, (a, b) => comparePaths(a.name, b.name), pace);
  return { folder: { path: folder.path, rules: folder.rules.with(folder.path, texts) }, entries: sorted };
}

/** An ignore file that cannot be read is listed by the scan like any other file; its rules are then unknown. */
async function readRules(reader: RepoReader, path: string): Promise<string | undefined> {
  try {
    if ((await reader.stat(path)).bytes > ruleFileLimitBytes) return undefined;
    return decodeText(await reader.readFile(path))?.text;
  } catch {
    return undefined;
  }
}

interface Sorted {
  readonly fileLimit: number;
  readonly paths: string[];
  readonly next: Folder[];
  readonly dropped: DroppedPath[];
}

async function sortOut(
  { folder, entries }: Listing,
  { fileLimit, paths, next, dropped }: Sorted,
  pace: Pace,
): Promise<void> {
  for (const [index, { name, kind }] of entries.entries()) {
    if (index % namesAtOnce === 0) await pace.breathe();
    const path = join(folder.path, name);
    if (name === ".git") continue; // Git's own store is no part of the repository's content.
    const isReadable = kind !== "other" && !controlCharacter.test(name);
    if (kind === "symlink") dropped.push({ path, reason: "symlink" });
    else if (!isReadable) dropped.push({ path: kind === "directory" ? `${path}/` : path, reason: "unreadable" });
    else if (kind === "directory") {
      if (folder.rules.ignoresDirectory(path)) dropped.push({ path: `${path}/`, reason: "ignored" });
      else next.push({ path, rules: folder.rules });
    } else if (folder.rules.ignoresFile(path)) dropped.push({ path, reason: "ignored" });
    else if (paths.length >= fileLimit) dropped.push({ path, reason: "file-limit" });
    else paths.push(path);
  }
}

function join(folder: string, name: string): string {
  return folder === "" ? name : `${folder}/${name}`;
}
