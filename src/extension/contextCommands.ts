// Owns: what the user can do in the Context view: say what is wanted of files and folders, show fewer of them, open and ignore
// them. Must never write anything but the ignore file, and that only when told to.
import { commands, l10n, Range, window, workspace, WorkspaceEdit } from "vscode";
import type { TreeView, Uri } from "vscode";
import type { FileChoice } from "../protocol/qa";
import { isChoosable } from "./contextTree";
import type { FileNode, FileState, FolderNode, TreeShape } from "./contextTree";
import { contextView } from "./contextView";
import type { ContextNode, ContextTree } from "./contextView";
import { withChoice } from "./fileChoices";
import { ignoreFileName, ignoreLine, withLines } from "./ignoreFile";
import { openPlace } from "./openPlace";
import type { Preparation } from "./preparation";
import type { WorkspaceRepository } from "./repoFiles";
import type { Repository } from "./repository";
import { wordWindowFit } from "./words";
import type { Disposable } from "./disposable";

type Entry = FolderNode | FileNode;

export interface ContextViewParts {
  readonly tree: ContextTree;
  readonly repository: Repository;
  readonly preparation: Preparation;
  /** For changes that the plan has to follow at once. */
  readonly planAgain: () => void;
}

export function registerContextView(parts: ContextViewParts): Disposable[] {
  const { tree, preparation, planAgain } = parts;
  const view = window.createTreeView<ContextNode>(contextView, {
    treeDataProvider: tree,
    canSelectMany: true,
    showCollapseAll: true,
  });
  const describe = (): void => describeView(view, tree, preparation);
  return [
    tree,
    view,
    tree.onDidChangeTreeData(describe),
    preparation.onDidChange(describe),
    view.onDidChangeVisibility(({ visible }) => {
      if (visible) preparation.start();
    }),
    ...registerChoices(parts, view),
    ...registerShapes(tree),
    ...registerFiles(parts, view),
    commands.registerCommand("ringside.context.refresh", planAgain),
  ];
}

function describeView(view: TreeView<ContextNode>, tree: ContextTree, { changedFiles }: Preparation): void {
  const { summary } = tree;
  const fit = summary === undefined ? null : wordWindowFit(summary);
  const filter = tree.shape.state === null ? null : l10n.t("Not all files are shown.");
  view.message = [fit, filter].filter((text) => text !== null).join(" ");
  const tooltip =
    changedFiles === 1
      ? l10n.t("1 file changed since the model read it")
      : l10n.t("{0} files changed since the model read them", changedFiles);
  view.badge = changedFiles === 0 ? undefined : { value: changedFiles, tooltip };
}

function registerChoices({ repository }: ContextViewParts, view: TreeView<ContextNode>): Disposable[] {
  const choosing = (command: string, choice: FileChoice | null): Disposable =>
    commands.registerCommand(command, async (clicked?: ContextNode, selected?: readonly ContextNode[]) => {
      const paths = entriesOf(view, clicked, selected)
        .filter(isChoosable)
        .map(({ path }) => path);
      if (paths.length > 0) await repository.setChoices(withChoice(repository.choices, paths, choice));
    });
  return [
    choosing("ringside.context.full", "full"),
    choosing("ringside.context.outline", "outline"),
    choosing("ringside.context.leaveOut", "out"),
    choosing("ringside.context.automatic", null),
  ];
}

function registerShapes(tree: ContextTree): Disposable[] {
  const shaping = (command: string, change: Partial<TreeShape>): Disposable =>
    commands.registerCommand(command, () => {
      tree.shape = { ...tree.shape, ...change };
      void commands.executeCommand("setContext", "ringside.context.state", tree.shape.state ?? "all");
      void commands.executeCommand("setContext", "ringside.context.order", tree.shape.order);
    });
  const showing = (command: string, state: FileState | null): Disposable => shaping(command, { state });
  return [
    showing("ringside.context.showAll", null),
    showing("ringside.context.showFull", "full"),
    showing("ringside.context.showOutlined", "outline"),
    showing("ringside.context.showLeftOut", "out"),
    showing("ringside.context.showExcluded", "excluded"),
    shaping("ringside.context.sortByName", { order: "name" }),
    shaping("ringside.context.sortByTokens", { order: "tokens" }),
  ];
}

function registerFiles({ repository, planAgain }: ContextViewParts, view: TreeView<ContextNode>): Disposable[] {
  return [
    commands.registerCommand("ringside.context.open", async (clicked?: ContextNode) => {
      const { open } = repository;
      const [entry] = entriesOf(view, clicked, undefined);
      if (open === null || entry === undefined || entry.kind !== "file" || entry.path.endsWith("/")) return;
      await openPlace(open.files, { path: entry.path, startLine: 0, endLine: 0 }, { preserveFocus: true });
    }),
    commands.registerCommand(
      "ringside.context.ignore",
      async (clicked?: ContextNode, selected?: readonly ContextNode[]) => {
        const paths = entriesOf(view, clicked, selected).map(({ path }) => path);
        if (repository.open !== null) await ignore(repository.open.files, paths);
        planAgain();
      },
    ),
    commands.registerCommand("ringside.context.openIgnoreFile", async () => {
      if (repository.open !== null) await openIgnoreFile(repository.open.files);
    }),
  ];
}

/** Each folder of the workspace has an ignore file of its own. The change can be undone in the editor. */
async function ignore(files: WorkspaceRepository, paths: readonly string[]): Promise<void> {
  const lines = new Map<string, string[]>();
  for (const path of paths) {
    const { root, inside } = files.rootOf(path);
    const line = ignoreLine(inside);
    if (line !== null) lines.set(root, [...(lines.get(root) ?? []), line]);
  }
  for (const [root, added] of lines) {
    const uri = files.uri(`${root}${ignoreFileName}`);
    await createIfMissing(uri);
    const document = await workspace.openTextDocument(uri);
    const text = document.getText();
    const edit = new WorkspaceEdit();
    edit.replace(uri, new Range(document.positionAt(0), document.positionAt(text.length)), withLines(text, added));
    await workspace.applyEdit(edit);
    await document.save();
  }
}

async function openIgnoreFile(files: WorkspaceRepository): Promise<void> {
  const [only, ...others] = files.roots;
  const root = others.length === 0 ? only : await window.showQuickPick([...files.roots]);
  if (root === undefined) return;
  const uri = files.uri(`${root}${ignoreFileName}`);
  await createIfMissing(uri);
  await window.showTextDocument(uri);
}

async function createIfMissing(uri: Uri): Promise<void> {
  const edit = new WorkspaceEdit();
  edit.createFile(uri, { ignoreIfExists: true });
  await workspace.applyEdit(edit);
}

/** A click stands for the whole selection if it is part of it; a key stands for the selection. */
function entriesOf(
  view: TreeView<ContextNode>,
  clicked: ContextNode | undefined,
  selected: readonly ContextNode[] | undefined,
): Entry[] {
  const nodes = selected ?? (clicked === undefined ? view.selection : [clicked]);
  return nodes.filter((node): node is Entry => node.kind === "file" || node.kind === "folder");
}
