// Owns: deleting everything that was kept of the user's repositories, and saying how much it was. Must never delete what the user
// made: files, settings, models and the list of their folders stay.
import type { Dirent } from "node:fs";
import { lstat, readdir, unlink } from "node:fs/promises";
import * as path from "node:path";
import { commands, l10n, window } from "vscode";
import type { Memento } from "vscode";
import type { Conversation } from "./conversation";
import type { EngineAccess } from "./engineAccess";
import { bytesText } from "./modelFacts";
import type { Preparation } from "./preparation";
import type { ReadAhead } from "./readAhead";
import type { Repository } from "./repository";
import { errorOf, wordError } from "./words";
import type { Disposable } from "./disposable";

const deletionsKey = "ringside.deletions";

export interface DataParts {
  /** Where the extension keeps files. */
  readonly folder: string;
  readonly workspaceState: Memento;
  readonly globalState: Memento;
  readonly conversation: Conversation;
  readonly engine: EngineAccess;
  readonly preparation: Preparation;
  readonly readAhead: ReadAhead;
  readonly repository: Repository;
}

export function registerDeleteAllData(parts: DataParts): Disposable {
  return commands.registerCommand("ringside.deleteAllData", async () => {
    const deleteAll = l10n.t("Delete All Data");
    const chosen = await window.showWarningMessage(
      l10n.t("Delete everything that Ringside keeps of your repositories?"),
      {
        modal: true,
        detail: l10n.t(
          "What was read of all repositories, the conversation of this window, and what you chose to read are deleted. Your files, settings and models stay. The next question reads its repository again.",
        ),
      },
      deleteAll,
    );
    if (chosen !== deleteAll) return;
    try {
      const bytes = await deleteAllData(parts);
      void window.showInformationMessage(
        l10n.t("Deleted {0} of what was read, the conversation and your choices.", bytesText(bytes)),
      );
    } catch (cause) {
      void window.showErrorMessage(wordError(errorOf(cause)));
    }
  });
}

/** Whatever runs is ended first, so that nothing is written behind it. Returns the bytes of the deleted files. */
export async function deleteAllData(parts: DataParts): Promise<number> {
  const { conversation, engine, preparation, readAhead, repository, folder, workspaceState, globalState } = parts;
  conversation.clear();
  readAhead.pause();
  await preparation.stop();
  await engine.port.stop();
  const bytes = await deleteFilesIn(folder);
  await globalState.update(deletionsKey, deletionsIn(globalState) + 1);
  forgetDeleted(workspaceState, globalState);
  repository.forget();
  return bytes;
}

/** What other workspaces remember can be reached only from there, so it goes when they are opened the next time. */
export function forgetDeleted(workspaceState: Memento, globalState: Memento): void {
  if (deletionsIn(workspaceState) === deletionsIn(globalState)) return;
  // Not awaited: what is read after this call is gone at once, and is written in the background.
  for (const key of workspaceState.keys()) void workspaceState.update(key, undefined);
  void workspaceState.update(deletionsKey, deletionsIn(globalState));
}

function deletionsIn(memory: Memento): number {
  const count = memory.get<unknown>(deletionsKey);
  return typeof count === "number" && Number.isSafeInteger(count) ? count : 0;
}

/** The folders stay: the engine of another window may be about to write into them. Links are removed, never followed. */
async function deleteFilesIn(folder: string): Promise<number> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (cause) {
    if (isMissing(cause)) return 0;
    throw cause;
  }
  let bytes = 0;
  for (const entry of entries) {
    const file = path.join(folder, entry.name);
    bytes += entry.isDirectory() ? await deleteFilesIn(file) : await deleteFile(file);
  }
  return bytes;
}

/** Another window may have been quicker. */
async function deleteFile(file: string): Promise<number> {
  try {
    const { size } = await lstat(file);
    await unlink(file);
    return size;
  } catch (cause) {
    if (isMissing(cause)) return 0;
    throw cause;
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "ENOENT";
}
