// Owns: the Context view: what the model sees of the folder, file by file, how much of the window that takes, and what the user
// wants otherwise. Draws a plan that was made elsewhere. Must never hold the thread, however many files there are.
import { EventEmitter, l10n, MarkdownString, ThemeIcon, TreeItem, TreeItemCollapsibleState } from "vscode";
import type { TreeDataProvider } from "vscode";
import { Pace } from "../context/pace";
import type { ContextPlan } from "../context/plan";
import type { FileChoices, PlanSummary } from "../protocol/qa";
import { buildTree, childrenOf, emptyTree, fileStates, isChoosable, stateOfFolder, tokensOf } from "./contextTree";
import type { FileNode, FileState, FolderNode, TreeNode, TreeShape } from "./contextTree";
import { choiceFor, placesOf } from "./fileChoices";
import { memoryBar } from "./memoryBar";
import { rounded } from "./modelFacts";
import type { Preparation } from "./preparation";
import type { Repository } from "./repository";
import { errorOf, wordChoice, wordError, wordFileReason, wordState } from "./words";
import type { Disposable } from "./disposable";

export const contextView = "ringside.context";

const barCharacters = 12;

/** The window as a whole, or a part of the repository. */
export type ContextNode = { readonly kind: "window"; readonly summary: PlanSummary } | TreeNode;

const icons: Readonly<Record<FileState, string>> = {
  full: "pass-filled",
  outline: "list-tree",
  out: "circle-slash",
  excluded: "exclude",
};

export class ContextTree implements TreeDataProvider<ContextNode>, Disposable {
  readonly #repository: Repository;
  readonly #onError: (message: string) => void;
  readonly #changed = new EventEmitter<ContextNode | undefined>();
  readonly #subscriptions: Disposable[];
  #shape: TreeShape = { state: null, order: "name" };
  #plan: ContextPlan | undefined;
  #root: FolderNode = emptyTree();
  #building = new AbortController();
  #places: { readonly of: FileChoices; readonly paths: ReadonlySet<string> } | undefined;
  readonly onDidChangeTreeData = this.#changed.event;

  constructor(repository: Repository, preparation: Preparation, onError: (message: string) => void) {
    this.#repository = repository;
    this.#onError = onError;
    this.#subscriptions = [
      preparation.onDidChange(() => void this.#rebuild()),
      repository.onDidChangeChoices(() => this.#changed.fire(undefined)),
    ];
  }

  get shape(): TreeShape {
    return this.#shape;
  }

  set shape(shape: TreeShape) {
    this.#shape = shape;
    this.#changed.fire(undefined);
  }

  /** What it shows; undefined: nothing was planned yet. */
  get summary(): PlanSummary | undefined {
    return this.#plan?.summary;
  }

  getChildren(node?: ContextNode): ContextNode[] {
    if (node?.kind === "window") return [];
    if (node !== undefined) return childrenOf(node, this.#shape);
    if (this.#plan === undefined) return [];
    return [{ kind: "window", summary: this.#plan.summary }, ...childrenOf(this.#root, this.#shape)];
  }

  getParent(node: ContextNode): ContextNode | undefined {
    const parent = node.kind === "window" ? null : node.parent;
    return parent === null || parent.parent === null ? undefined : parent;
  }

  getTreeItem(node: ContextNode): TreeItem {
    if (node.kind === "window") return windowItem(node.summary, this.#root);
    if (node.kind === "more") return moreItem(node.count);
    const { choices } = this.#repository;
    if (this.#places?.of !== choices) this.#places = { of: choices, paths: placesOf(choices) };
    return entryItem(node, choices, this.#places.paths);
  }

  async #rebuild(): Promise<void> {
    const plan = this.#repository.open?.context.lastPlan;
    const isShown = plan === this.#plan;
    if (isShown) return;
    this.#building.abort();
    const building = new AbortController();
    this.#building = building;
    try {
      const root = plan === undefined ? emptyTree() : await buildTree(plan.files, new Pace(building.signal));
      this.#root = root;
      this.#plan = plan;
      this.#changed.fire(undefined);
    } catch (cause) {
      const error = errorOf(cause);
      if (error.kind !== "cancelled") this.#onError(wordError(error));
    }
  }

  dispose(): void {
    this.#building.abort();
    for (const subscription of this.#subscriptions) subscription.dispose();
    this.#changed.dispose();
  }
}

/** A bar for the eye; a screen reader hears the numbers instead of its characters. */
function windowItem({ readTokens, budgetTokens }: PlanSummary, { counts }: FolderNode): TreeItem {
  const used = l10n.t("{0} of {1} tokens", rounded(readTokens), rounded(budgetTokens));
  const item = new TreeItem(used, TreeItemCollapsibleState.None);
  // The last of the bar's four kinds stands for what is free.
  const bar = memoryBar([readTokens, 0, 0, Math.max(0, budgetTokens - readTokens)], barCharacters);
  item.id = "window";
  item.description = bar;
  const words = [used, ...countTexts(counts)];
  item.tooltip = words.join("\n");
  item.accessibilityInformation = { label: `${l10n.t("Context")}: ${words.join(", ")}` };
  item.iconPath = new ThemeIcon("pie-chart");
  item.contextValue = "window";
  return item;
}

function countTexts(counts: Readonly<Record<FileState, number>>): string[] {
  return fileStates
    .filter((state) => counts[state] > 0)
    .map((state) => `${rounded(counts[state])} ${wordState(state)}`);
}

function moreItem(count: number): TreeItem {
  const item = new TreeItem(l10n.t("{0} more", rounded(count)), TreeItemCollapsibleState.Collapsed);
  item.iconPath = new ThemeIcon("ellipsis");
  item.contextValue = "more";
  return item;
}

function entryItem(node: FolderNode | FileNode, choices: FileChoices, places: ReadonlySet<string>): TreeItem {
  const isFolder = node.kind === "folder";
  const { Collapsed, None } = TreeItemCollapsibleState;
  const item = new TreeItem(node.name, isFolder ? Collapsed : None);
  const state = isFolder ? stateOfFolder(node) : node.state;
  const tokens = tokensOf(node);
  const tokenTexts = tokens > 0 ? [l10n.t("{0} tokens", rounded(tokens))] : [];
  const states = state === null && isFolder ? countTexts(node.counts) : [wordState(state ?? "excluded")];
  const chosen = choiceFor(choices, node.path);
  const chosenTexts = chosen === null ? [] : [wordChoice(chosen.choice, chosen.choice === state)];
  // A folder that was left out as a whole is one entry, beside which another of its name may stand.
  item.id = `${node.kind} ${node.path}`;
  item.iconPath = new ThemeIcon(state === null ? "folder" : icons[state]);
  item.description = [...tokenTexts, ...states, ...chosenTexts].join(" · ");
  const reason = isFolder ? [] : [wordFileReason(node.file.reason)];
  const inherited = chosen === null || chosen.of === node.path ? [] : [l10n.t("as chosen for {0}", chosen.of)];
  const words = [
    ...tokenTexts,
    ...(isFolder ? countTexts(node.counts) : states),
    ...reason,
    ...chosenTexts,
    ...inherited,
  ];
  item.tooltip = new MarkdownString().appendText([node.path, ...words].join("\n"));
  item.accessibilityInformation = { label: [node.name, ...words].join(", ") };
  // The menus of package.json ask for these words.
  item.contextValue = [
    node.kind,
    ...(isChoosable(node) ? ["choosable"] : []),
    ...(chosen !== null || places.has(node.path) ? ["chosen"] : []),
    ...(node.kind === "file" && node.path.endsWith("/") ? [] : ["ignorable"]),
  ].join(" ");
  if (!isFolder && !node.path.endsWith("/")) {
    item.command = { command: "ringside.context.open", title: l10n.t("Open"), arguments: [node] };
  }
  return item;
}
