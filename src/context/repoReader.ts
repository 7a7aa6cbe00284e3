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

/** When the files of a repository last changed, as its own history tells it. */
export interface ChangeHistory {
  /** Names the state of the history: with the same name, everything else is the same too. */
  readonly id: string;
  /** By path, in seconds since 1970. */
  readonly changedAt: ReadonlyMap<string, number>;
  /** Whether every file that was ever committed is in it; if not, the others changed longer ago. */
  readonly isWhole: boolean;
}

export interface RepoReader {
  /** The repository's name as the prompt shows it; no path of the machine. */
  readonly name: string;
  /** Rejects when the folder cannot be read. Order is not significant. */
  readDirectory(path: string): Promise<readonly RepoEntry[]>;
  stat(path: string): Promise<RepoFileStat>;
  readFile(path: string): Promise<Uint8Array>;
  /** null: it has none, or it may not be asked. Without this, it never has. */
  history?(signal?: AbortSignal): Promise<ChangeHistory | null>;
}

/** The order of paths everywhere: by their characters' numbers, not by the language of the machine. */
export function comparePaths(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Of several folders, each under its name; null when none has a history. Files of a folder without one count as old. */
export function joinHistories(folders: readonly (readonly [string, ChangeHistory | null])[]): ChangeHistory | null {
  if (folders.every(([, history]) => history === null)) return null;
  const changedAt = new Map<string, number>();
  for (const [name, history] of folders) {
    for (const [path, seconds] of history?.changedAt ?? []) changedAt.set(`${name}/${path}`, seconds);
  }
  return {
    id: folders.map(([name, history]) => `${name} ${history?.id ?? ""}`).join("\n"),
    changedAt,
    isWhole: folders.every(([, history]) => history?.isWhole === true),
  };
}
