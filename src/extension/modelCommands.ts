// Owns: what the user does with models: add a folder, use, load, unload, remove; from the tree or from the palette.
import { commands, l10n, ProgressLocation, Uri, window } from "vscode";
import type { CancellationToken } from "vscode";
import type { ModelLibrary } from "../models/library";
import { inspectModelFolder } from "../models/library";
import type { EngineAccess } from "./engineAccess";
import type { ModelsTree } from "./modelsView";
import { writeModelSetting } from "./settings";
import { errorOf, wordError } from "./words";
import type { Disposable } from "./disposable";

export interface ModelCommandParts {
  readonly library: ModelLibrary;
  readonly engine: EngineAccess;
  readonly tree: ModelsTree;
}

export function registerModelCommands(parts: ModelCommandParts): Disposable[] {
  const { library, engine, tree } = parts;
  const onModel = (
    command: string,
    offered: () => readonly string[],
    act: (folder: string) => Promise<void>,
  ): Disposable =>
    commands.registerCommand(command, async (argument: unknown) => {
      const folder = folderOf(argument) ?? (await pick(parts, offered()));
      if (folder !== undefined) await reporting(act)(folder);
    });
  const added = (): readonly string[] => tree.folders().filter((folder) => folder !== library.embedded);
  return [
    commands.registerCommand("ringside.addModel", (argument: unknown) => reporting(addFolder)(parts, argument)),
    onModel(
      "ringside.useModel",
      () => tree.folders(),
      (folder) => use(parts, folder),
    ),
    onModel(
      "ringside.loadModel",
      () => tree.folders(),
      (folder) => load(parts, folder),
    ),
    onModel("ringside.removeModel", added, (folder) => remove(parts, folder)),
    commands.registerCommand(
      "ringside.unloadModel",
      reporting(() => engine.port.unload()),
    ),
    commands.registerCommand(
      "ringside.restartEngine",
      reporting(() =>
        withProgress(l10n.t("Restarting the engine"), (onProgress, signal) => engine.restart(onProgress, signal)),
      ),
    ),
  ];
}

/** Says what went wrong, with the log at hand. */
function reporting<A extends readonly unknown[]>(act: (...args: A) => Promise<void>): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await act(...args);
    } catch (cause) {
      const error = errorOf(cause);
      if (error.kind === "cancelled") return;
      const showLog = l10n.t("Show Log");
      void window.showErrorMessage(wordError(error), showLog).then((chosen) => {
        if (chosen === showLog) void commands.executeCommand("ringside.showLog");
      });
    }
  };
}

async function addFolder({ library, tree }: ModelCommandParts, argument: unknown): Promise<void> {
  const chosen =
    argument instanceof Uri
      ? argument
      : (
          await window.showOpenDialog({
            canSelectFiles: false,
            canSelectFolders: true,
            title: l10n.t("Choose a folder with config.json, tokenizer.json and *.safetensors"),
            openLabel: l10n.t("Add Model Folder"),
          })
        )?.[0];
  if (chosen === undefined) return;
  // Added even when something is missing: the tree then says what.
  await library.add(chosen.fsPath);
  tree.refresh();
  await inspectModelFolder(chosen.fsPath);
}

/** What the user wants from now on is kept, and loaded at once so that a failure shows now. */
async function use(parts: ModelCommandParts, folder: string): Promise<void> {
  await writeModelSetting(folder === parts.library.embedded ? "" : folder);
  parts.tree.refresh();
  await load(parts, folder);
}

async function load({ engine, tree }: ModelCommandParts, folder: string): Promise<void> {
  await withProgress(l10n.t("Loading {0}", tree.nameOf(folder)), (onProgress, signal) =>
    engine.load(folder, onProgress, signal),
  );
}

async function remove({ library, engine, tree }: ModelCommandParts, folder: string): Promise<void> {
  if (folder === library.embedded) return;
  if (engine.port.status().model?.folder === folder) await engine.port.unload();
  if (engine.folderInUse === folder) await writeModelSetting("");
  await library.remove(folder);
  tree.refresh();
}

async function withProgress(
  title: string,
  work: (onProgress: (fraction: number) => void, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  await window.withProgress(
    { location: ProgressLocation.Notification, title, cancellable: true },
    (progress, token) => {
      let shown = 0;
      return work((fraction) => {
        progress.report({ increment: (fraction - shown) * 100 });
        shown = fraction;
      }, signalOf(token));
    },
  );
}

function signalOf(token: CancellationToken): AbortSignal {
  const abort = new AbortController();
  token.onCancellationRequested(() => abort.abort());
  return abort.signal;
}

function folderOf(argument: unknown): string | undefined {
  if (typeof argument !== "object" || argument === null || !("folder" in argument)) return undefined;
  return typeof argument.folder === "string" ? argument.folder : undefined;
}

async function pick({ engine, tree }: ModelCommandParts, folders: readonly string[]): Promise<string | undefined> {
  const items = folders.map((folder) => ({
    label: tree.nameOf(folder),
    description: folder === engine.folderInUse ? l10n.t("in use") : "",
    detail: folder,
  }));
  if (items.length === 0) {
    void window.showInformationMessage(l10n.t("No model folder has been added."));
    return undefined;
  }
  return (await window.showQuickPick(items, { placeHolder: l10n.t("Choose a model") }))?.detail;
}
