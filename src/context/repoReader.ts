// The port through which this room reads a repository. Implemented over vscode.workspace.fs (src/extension/repoFiles.ts)
// and over the disk (src/cli/diskRepository.ts). Paths are relative to the repository, with "/" and no leading "/" or "./";
// with several workspace roots the first component is the root's name. "" is the repository itself.

export interface RepoEntry {
  readonly name: string;
  readonly kind: "file" | "directory" | "symlink" | "other";
}

export interface RepoFileStat {
  readonly bytes: number;
  readonly modifiedMs: number;
}

export interface RepoReader {
  /** The repository's name as the prompt shows it; no path of the machine. */
  readonly name: string;
  /** Rejects when the folder cannot be read. Order is not significant. */
  readDirectory(path: string): Promise<readonly RepoEntry[]>;
  stat(path: string): Promise<RepoFileStat>;
  readFile(path: string): Promise<Uint8Array>;
}
