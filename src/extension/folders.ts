// Owns: the choice of the folders that are read, and of those of which the outline is enough. Offers the folders that hold text,
// with how much.
import { commands, l10n, ProgressLocation, window } from "vscode";
import type { QuickPickItem } from "vscode";
import type { RepositoryScan } from "../context/scan";
import { withChoice } from "./fileChoices";
import { rounded } from "./modelFacts";
import type { Repository } from "./repository";
import { workspaceState } from "./trust";
import { errorOf, wordError } from "./words";
import type { Disposable } from "./disposable";

const deepestLevel = 4;
const mostOffered = 2_000;

export function registerFolderChoice(repository: Repository): Disposable[] {
  return [
    commands.registerCommand("ringside.chooseFolders", async () => {
      const scan = await scanForChoice(repository);
      if (scan === null) return;
      const chosen = await pickFolders(scan, repository.scope, {
        title: l10n.t("Folders to Read"),
        placeHolder: l10n.t("Choose the folders to read; choose none to read all"),
      });
      if (chosen !== undefined) await repository.setScope(chosen);
    }),
    commands.registerCommand("ringside.outlineFolders", async () => {
      const scan = await scanForChoice(repository);
      if (scan === null) return;
      const { choices } = repository;
      const outlined = Object.keys(choices).filter((path) => path.endsWith("/") && choices[path] === "outline");
      const chosen = await pickFolders(
        scan,
        outlined.map((path) => path.slice(0, -1)),
        {
          title: l10n.t("Folders to Outline"),
          placeHolder: l10n.t("Choose the folders of which only signatures and comments are read"),
        },
      );
      if (chosen === undefined) return;
      const cleared = withChoice(choices, outlined, null);
      await repository.setChoices(
        withChoice(
          cleared,
          chosen.map((folder) => `${folder}/`),
          "outline",
        ),
      );
    }),
  ];
}

/** The last scan, or a new one where reading is allowed without a question. */
async function scanForChoice({ open }: Repository): Promise<RepositoryScan | null> {
  if (open === null) {
    void window.showInformationMessage(l10n.t("Open a folder first."));
    return null;
  }
  if (open.context.lastScan !== undefined) return open.context.lastScan;
  if (workspaceState() !== "ready") {
    void window.showInformationMessage(
      l10n.t("In Restricted Mode nothing is read until you ask. Ask a question first, then choose the folders."),
    );
    return null;
  }
  try {
    const title = l10n.t("Looking through the folder");
    return await window.withProgress({ location: ProgressLocation.Window, title }, () => open.context.scan());
  } catch (cause) {
    void window.showErrorMessage(wordError(errorOf(cause)));
    return null;
  }
}

interface FolderItem extends QuickPickItem {
  readonly folder: string;
}

/** undefined: the choice was given up; empty: everything. */
async function pickFolders(
  scan: RepositoryScan,
  picked: readonly string[],
  words: { readonly title: string; readonly placeHolder: string },
): Promise<string[] | undefined> {
  const items = foldersOf(scan).map(([folder, files]): FolderItem => ({
    label: folder,
    description: files === 1 ? l10n.t("1 file") : l10n.t("{0} files", rounded(files)),
    picked: picked.includes(folder),
    folder,
  }));
  if (items.length === 0) {
    void window.showInformationMessage(l10n.t("This folder has no folders in it: all of it is read."));
    return undefined;
  }
  const chosen = await window.showQuickPick(items, {
    canPickMany: true,
    matchOnDescription: true,
    ...words,
  });
  return chosen === undefined ? undefined : outermost(chosen.map(({ folder }) => folder));
}

/** Each folder with the number of text files in it and below. */
export function foldersOf({ files }: Pick<RepositoryScan, "files">): [string, number][] {
  const counts = new Map<string, number>();
  for (const { path } of files) {
    const parts = path.split("/").slice(0, -1);
    for (let level = 1; level <= Math.min(parts.length, deepestLevel); level++) {
      const folder = parts.slice(0, level).join("/");
      counts.set(folder, (counts.get(folder) ?? 0) + 1);
    }
  }
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, mostOffered);
}

/** A folder inside another chosen one adds nothing. */
export function outermost(folders: readonly string[]): string[] {
  const chosen = new Set(folders);
  return folders.filter((folder) => {
    let slash = folder.lastIndexOf("/");
    while (slash > 0 && !chosen.has(folder.slice(0, slash))) slash = folder.lastIndexOf("/", slash - 1);
    return slash <= 0;
  });
}
