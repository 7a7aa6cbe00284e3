// Owns: the repository that questions are about: the folders that are open now, what was remembered of them, and the folders
// that the user limited reading to. Must never read anything by itself.
import { EventEmitter, workspace } from "vscode";
import type { Memento } from "vscode";
import { RepositoryContext } from "../context/repositoryContext";
import { WorkspaceRepository } from "./repoFiles";
import type { Disposable } from "./disposable";

const scopeKey = "ringside.scope";

export interface OpenRepository {
  readonly files: WorkspaceRepository;
  readonly context: RepositoryContext;
}

export class Repository implements Disposable {
  readonly #memory: Memento;
  readonly #folders = new EventEmitter<void>();
  readonly #scope = new EventEmitter<void>();
  readonly #subscription: Disposable;
  #open: OpenRepository | null;
  /** Other folders are open than before: what is remembered is of another repository. */
  readonly onDidChangeFolders = this.#folders.event;
  readonly onDidChangeScope = this.#scope.event;

  constructor(memory: Memento) {
    this.#memory = memory;
    this.#open = openRepository();
    this.#subscription = workspace.onDidChangeWorkspaceFolders(() => {
      this.#open = openRepository();
      this.#folders.fire();
    });
  }

  /** null: no folder is open. */
  get open(): OpenRepository | null {
    return this.#open;
  }

  get scope(): readonly string[] {
    const stored = this.#memory.get<unknown>(scopeKey);
    return Array.isArray(stored) ? stored.filter((item): item is string => typeof item === "string") : [];
  }

  async setScope(folders: readonly string[]): Promise<void> {
    await this.#memory.update(scopeKey, folders.length === 0 ? undefined : folders);
    this.#scope.fire();
  }

  dispose(): void {
    this.#subscription.dispose();
    this.#folders.dispose();
    this.#scope.dispose();
  }
}

function openRepository(): OpenRepository | null {
  const folders = workspace.workspaceFolders ?? [];
  if (folders.length === 0) return null;
  const files = new WorkspaceRepository(folders, workspace.name);
  return { files, context: new RepositoryContext(files) };
}
