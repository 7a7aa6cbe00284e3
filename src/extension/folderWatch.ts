// Owns: which files of the open folders change, whoever changes them. Must never read any: it only tells.
import { EventEmitter, RelativePattern, workspace } from "vscode";
import type { Uri } from "vscode";
import type { Repository } from "./repository";
import type { Disposable } from "./disposable";

export class FolderWatch implements Disposable {
  readonly #repository: Repository;
  readonly #changed = new EventEmitter<string>();
  readonly #foldersChanged: Disposable;
  #watchers: Disposable[] = [];
  /** Paths of the repository. */
  readonly onDidChange = this.#changed.event;

  constructor(repository: Repository) {
    this.#repository = repository;
    this.#foldersChanged = repository.onDidChangeFolders(() => this.#watch());
    this.#watch();
  }

  #watch(): void {
    for (const watcher of this.#watchers) watcher.dispose();
    const tell = (uri: Uri): void => {
      const path = this.#repository.open?.files.pathOf(uri) ?? null;
      if (path !== null) this.#changed.fire(path);
    };
    this.#watchers = (workspace.workspaceFolders ?? []).flatMap((folder) => {
      const watcher = workspace.createFileSystemWatcher(new RelativePattern(folder, "**/*"));
      return [watcher, watcher.onDidChange(tell), watcher.onDidCreate(tell), watcher.onDidDelete(tell)];
    });
  }

  dispose(): void {
    for (const watcher of this.#watchers) watcher.dispose();
    this.#foldersChanged.dispose();
    this.#changed.dispose();
  }
}
