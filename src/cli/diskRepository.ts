// Owns: a folder of this machine as a repository. Must never read outside it or follow a symbolic link out of it.
import { lstat, open, readdir } from "node:fs/promises";
import { constants } from "node:fs";
import * as path from "node:path";
import type { Dirent } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import type { ChangeHistory, RepoEntry, RepoFileStat, RepoReader } from "../context/repoReader";
import { GitHistory } from "../git/gitHistory";

export class DiskRepository implements RepoReader {
  readonly name: string;
  readonly #root: string;
  readonly #git: GitHistory;

  constructor(folder: string) {
    this.#root = path.resolve(folder);
    this.#git = new GitHistory(this.#root);
    this.name = path.basename(this.#root) || "repository";
  }

  async readDirectory(directory: string): Promise<readonly RepoEntry[]> {
    const entries = await readdir(this.#place(directory), { withFileTypes: true });
    return entries.map((entry) => ({ name: entry.name, kind: kindOf(entry) }));
  }

  async stat(file: string): Promise<RepoFileStat> {
    const stat = await lstat(this.#place(file));
    if (!stat.isFile()) throw new Error(`${file} is not a file`);
    return { bytes: stat.size, modifiedMs: stat.mtimeMs };
  }

  async readFile(file: string): Promise<Uint8Array> {
    // A link may have taken the file's place since it was listed; a pipe would keep us waiting for ever.
    const handle = await open(this.#place(file), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) throw new Error(`${file} is not a file`);
      return await readWhole(handle, stat.size);
    } finally {
      await handle.close();
    }
  }

  history(signal?: AbortSignal): Promise<ChangeHistory | null> {
    return this.#git.read(signal);
  }

  #place(relative: string): string {
    const place = path.join(this.#root, relative);
    const isInside = place === this.#root || place.startsWith(this.#root + path.sep) || this.#root === path.sep;
    if (!isInside) throw new Error(`${relative} is outside the repository`);
    return place;
  }
}

/** As `handle.readFile`, which asks for the size once more: with ten thousand files that is a tenth of the scan. */
async function readWhole(handle: FileHandle, bytes: number): Promise<Uint8Array> {
  const content = Buffer.allocUnsafeSlow(bytes);
  let length = 0;
  while (length < bytes) {
    const { bytesRead } = await handle.read(content, length, bytes - length, length);
    if (bytesRead === 0) break; // It has become shorter.
    length += bytesRead;
  }
  return content.subarray(0, length);
}

function kindOf(entry: Dirent): RepoEntry["kind"] {
  if (entry.isSymbolicLink()) return "symlink";
  if (entry.isFile()) return "file";
  return entry.isDirectory() ? "directory" : "other";
}
