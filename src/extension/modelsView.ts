// Owns: the Models view: the embedded model and the folders that the user added, which one is in use, and what the engine tells of
// the loaded one. A folder that cannot be loaded says why.
import { basename } from "node:path";
import { EventEmitter, l10n, MarkdownString, ThemeIcon, TreeItem, TreeItemCollapsibleState, window } from "vscode";
import type { TreeDataProvider } from "vscode";
import type { FolderFacts, ModelLibrary } from "../models/library";
import { inspectModelFolder } from "../models/library";
import type { ModelInfo } from "../protocol/engine";
import type { EngineAccess } from "./engineAccess";
import { memoryBar, percentOf } from "./memoryBar";
import {
  backendText,
  bytesText,
  lossTexts,
  memoryParts,
  rounded,
  speedTexts,
  stateText,
  weightsText,
} from "./modelFacts";
import { errorOf, wordError } from "./words";
import type { Disposable } from "./disposable";

export const modelsView = "ringside.models";

const barCharacters = 12;

/** One model folder, or one fact about it. */
export type ModelNode =
  | { readonly type: "model"; readonly folder: string }
  | { readonly type: "memory"; readonly model: ModelInfo }
  | { readonly type: "fact"; readonly label: string; readonly value: string; readonly icon: string };

export class ModelsTree implements TreeDataProvider<ModelNode>, Disposable {
  readonly #library: ModelLibrary;
  readonly #engine: EngineAccess;
  readonly #changed = new EventEmitter<void>();
  readonly #subscription: Disposable;
  readonly onDidChangeTreeData = this.#changed.event;

  constructor(library: ModelLibrary, engine: EngineAccess) {
    this.#library = library;
    this.#engine = engine;
    this.#subscription = engine.onDidChange(() => this.#changed.fire());
  }

  refresh(): void {
    this.#changed.fire();
  }

  getChildren(node?: ModelNode): ModelNode[] | Promise<ModelNode[]> {
    if (node === undefined) return this.folders().map((folder) => ({ type: "model", folder }));
    if (node.type === "memory") return memoryFacts(node.model);
    return node.type === "model" ? this.#facts(node.folder) : [];
  }

  getTreeItem(node: ModelNode): TreeItem {
    if (node.type === "memory") return memoryItem(node.model);
    return node.type === "model" ? this.#modelItem(node.folder) : factItem(node);
  }

  /** A model set by hand in the settings stands in the list as well. */
  folders(): readonly string[] {
    return [...new Set([...this.#library.folders(), this.#engine.folderInUse])];
  }

  nameOf(folder: string): string {
    return folder === this.#library.embedded ? l10n.t("Embedded model") : basename(folder);
  }

  #loaded(folder: string): ModelInfo | null {
    const { model } = this.#engine.port.status();
    return model?.folder === folder ? model : null;
  }

  #modelItem(folder: string): TreeItem {
    const isInUse = folder === this.#engine.folderInUse;
    const isLoaded = this.#loaded(folder) !== null;
    const error = this.#engine.loadError(folder);
    const { state } = this.#engine.port.status();
    const item = new TreeItem(
      this.nameOf(folder),
      isInUse ? TreeItemCollapsibleState.Expanded : TreeItemCollapsibleState.Collapsed,
    );
    item.id = folder;
    item.description = [
      ...(isInUse ? [l10n.t("in use")] : []),
      ...(isLoaded ? [l10n.t("loaded")] : []),
      ...(isInUse && state === "loading" ? [l10n.t("loading")] : []),
      ...(error === undefined ? [] : [l10n.t("cannot be loaded")]),
    ].join(", ");
    item.iconPath = new ThemeIcon(error !== undefined ? "warning" : isInUse ? "pass-filled" : "circle-large-outline");
    item.tooltip = new MarkdownString().appendText(error === undefined ? folder : `${folder}\n${wordError(error)}`);
    // The menus of package.json ask for these words.
    item.contextValue = [
      "model",
      folder === this.#library.embedded ? "embedded" : "added",
      isInUse ? "used" : "unused",
      isLoaded ? "loaded" : "unloaded",
    ].join(" ");
    return item;
  }

  async #facts(folder: string): Promise<ModelNode[]> {
    const error = this.#engine.loadError(folder);
    const failed = error === undefined ? [] : [fact(l10n.t("Why"), wordError(error), "error")];
    const model = this.#loaded(folder);
    if (model !== null) {
      const status = this.#engine.port.status();
      return [
        ...lossTexts(status).map((text) => fact(l10n.t("GPU"), text, "warning")),
        fact(l10n.t("Device"), model.device, "chip"),
        fact(l10n.t("Backend"), backendText(model), "gear"),
        { type: "memory", model },
        fact(l10n.t("Weights"), weightsText(model), "server"),
        fact(l10n.t("State"), stateText(model), "database"),
        fact(l10n.t("Context"), l10n.t("{0} tokens", rounded(model.contextTokens)), "symbol-ruler"),
        ...speedTexts(status).map((text) => fact(l10n.t("Last measured"), text, "dashboard")),
      ];
    }
    try {
      return [...failed, ...factNodes(await inspectModelFolder(folder))];
    } catch (cause) {
      return failed.length > 0 ? failed : [fact(l10n.t("Why"), wordError(errorOf(cause)), "error")];
    }
  }

  dispose(): void {
    this.#subscription.dispose();
    this.#changed.dispose();
  }
}

function factNodes({ weightBytes, contextTokens }: FolderFacts): ModelNode[] {
  return [
    fact(l10n.t("Weights"), l10n.t("{0} on disk", bytesText(weightBytes)), "file-binary"),
    ...(contextTokens === null
      ? []
      : [fact(l10n.t("Context"), l10n.t("{0} tokens", rounded(contextTokens)), "symbol-ruler")]),
  ];
}

function memoryFacts(model: ModelInfo): ModelNode[] {
  const parts = memoryParts(model);
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  return parts.map(({ label, bytes }) =>
    fact(label, l10n.t("{0}, {1} %", bytesText(bytes), percentOf(bytes, total)), "circle-small-filled"),
  );
}

/** A bar for the eye; a screen reader hears the parts instead of its characters. */
function memoryItem(model: ModelInfo): TreeItem {
  const parts = memoryParts(model);
  const total = bytesText(parts.reduce((sum, { bytes }) => sum + bytes, 0));
  const item = new TreeItem(l10n.t("Memory"), TreeItemCollapsibleState.Collapsed);
  const bar = memoryBar(
    parts.map(({ bytes }) => bytes),
    barCharacters,
  );
  item.description = `${bar} ${total}`;
  const words = [
    l10n.t("{0} with a full context", total),
    ...parts.map(({ label, bytes }) => `${label}: ${bytesText(bytes)}`),
    model.device,
  ];
  item.tooltip = words.join("\n");
  item.accessibilityInformation = { label: `${l10n.t("Memory")}: ${words.join(", ")}` };
  item.iconPath = new ThemeIcon("pie-chart");
  item.contextValue = "fact";
  return item;
}

function fact(label: string, value: string, icon: string): ModelNode {
  return { type: "fact", label, value, icon };
}

function factItem({ label, value, icon }: Extract<ModelNode, { type: "fact" }>): TreeItem {
  const item = new TreeItem(label);
  item.description = value;
  item.tooltip = `${label}: ${value}`;
  item.iconPath = new ThemeIcon(icon);
  item.contextValue = "fact";
  return item;
}

export function registerModelsView(tree: ModelsTree): Disposable[] {
  return [tree, window.createTreeView(modelsView, { treeDataProvider: tree })];
}
