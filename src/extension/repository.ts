// Owns: the repository that questions are about: the folders that are open now, what was remembered of them, the folders that the
// user limited reading to, and what the user wants of single files and folders. Must never read anything by itself.
import { EventEmitter, workspace } from "vscode";
import type { Memento } from "vscode";
import { RepositoryContext } from "../context/repositoryContext";
import type { ContextOptions } from "../context/repositoryContext";
import type { FileChoices } from "../protocol/qa";
import { parseChoices } from "./fileChoices";
import { WorkspaceRepository } from "./repoFiles";
import type { Disposable } from "./disposable";

const scopeKey = "ringside.scope";
const choicesKey = "ringside.choices";

export interface OpenRepository {
  readonly files: WorkspaceRepository;
  readonly context: RepositoryContext;
}

export class Repository implements Disposable {
  readonly #memory: Memento;
  readonly #folders = new EventEmitter<void>();
  readonly #scope = new EventEmitter<void>();
  readonly #choicesChanged = new EventEmitter<void>();
  readonly #subscription: Disposable;
  #open: OpenRepository | null;
  #choices: FileChoices;
  /** Other folders are open than before: what is remembered is of another repository. */
  readonly onDidChangeFolders = this.#folders.event;
  readonly onDidChangeScope = this.#scope.event;
  readonly onDidChangeChoices = this.#choicesChanged.event;

  /** `options`: how each repository that is opened is looked into, and where it is kept how it was read. */
  constructor(
    memory: Memento,
    private readonly options: ContextOptions,
  ) {
    this.#memory = memory;
    this.#open = openRepository(options);
    this.#choices = parseChoices(memory.get<unknown>(choicesKey));
    this.#subscription = workspace.onDidChangeWorkspaceFolders(() => {
      this.#open = openRepository(options);
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

  get choices(): FileChoices {
    return this.#choices;
  }

  async setChoices(choices: FileChoices): Promise<void> {
    this.#choices = choices;
    const isEmpty = Object.keys(choices).length === 0;
    await this.#memory.update(choicesKey, isEmpty ? undefined : choices);
    this.#choicesChanged.fire();
  }

  /** What was remembered is deleted: everything begins anew. */
  forget(): void {
    this.#choices = parseChoices(this.#memory.get<unknown>(choicesKey));
    this.#open = openRepository(this.options);
    this.#folders.fire();
    this.#choicesChanged.fire();
  }

  dispose(): void {
    this.#choicesChanged.dispose();
    this.#subscription.dispose();
    this.#folders.dispose();
    this.#scope.dispose();
  }
}

function openRepository(options: ContextOptions): OpenRepository | null {
  const folders = workspace.workspaceFolders ?? [];
  if (folders.length === 0) return null;
  const files = new WorkspaceRepository(folders, workspace.name);
  return { files, context: new RepositoryContext(files, options) };
}
