// Owns: the tree of everything that a plan read, outlined and left out: folders with the tokens and states of what is in them.
// Knows nothing of VS Code. Must never hold the thread: a repository may have a hundred thousand files.
import { comparePaths } from "../context/repoReader";
import type { DropReason, PlannedFile } from "../protocol/qa";

/** "out": text that could be read and is not. "excluded": what is never offered, such as ignored and binary files. */
export type FileState = "full" | "outline" | "out" | "excluded";
export const fileStates: readonly FileState[] = ["full", "outline", "out", "excluded"];

export interface FileNode {
  readonly kind: "file";
  readonly path: string;
  readonly name: string;
  readonly sortKey: string;
  readonly parent: FolderNode;
  readonly file: PlannedFile;
  readonly state: FileState;
}

export interface FolderNode {
  readonly kind: "folder";
  /** Ends with "/"; "": the repository. */
  readonly path: string;
  readonly name: string;
  readonly sortKey: string;
  readonly parent: FolderNode | null;
  readonly folders: Map<string, FolderNode>;
  readonly files: FileNode[];
  /** Of everything in it, at any depth. */
  readonly counts: Record<FileState, number>;
  /** What stands in the prompt, outlines included. */
  tokens: number;
}

/** The rest of a folder that has very many entries. */
export interface MoreNode {
  readonly kind: "more";
  readonly parent: FolderNode;
  readonly from: number;
  readonly count: number;
}

export type TreeNode = FolderNode | FileNode | MoreNode;

export interface TreeShape {
  /** Null: all of them. */
  readonly state: FileState | null;
  readonly order: "name" | "tokens";
}

/** The editor makes an item of each entry at once, on the extension host's thread. */
export const entriesAtOnce = 500;
const filesBetweenPauses = 64;

const leftOutForItsForm: ReadonlySet<string> = new Set<DropReason>(["too-large", "minified", "generated", "lock-file"]);
const couldBeRead: ReadonlySet<string> = new Set<DropReason>(["over-budget", "out-of-scope", "chosen-out"]);

export function stateOf({ mode, reason }: PlannedFile): FileState {
  if (mode !== "dropped") return mode;
  return couldBeRead.has(reason) ? "out" : "excluded";
}

/** Whether a choice of the user can bring it in or leave it out; of a folder that was left out as a whole nothing is known. */
export function isChoosable(node: FolderNode | FileNode): boolean {
  if (node.kind === "folder") return true;
  return !node.path.endsWith("/") && (node.state !== "excluded" || leftOutForItsForm.has(node.file.reason));
}

export function emptyTree(): FolderNode {
  return newFolder("", "", null);
}

export async function buildTree(
  files: readonly PlannedFile[],
  pace: { breathe(): Promise<void> },
): Promise<FolderNode> {
  const root = emptyTree();
  for (const [index, file] of files.entries()) {
    if (index % filesBetweenPauses === 0) await pace.breathe();
    insert(root, file);
  }
  return root;
}

function insert(root: FolderNode, file: PlannedFile): void {
  // A folder that was left out as a whole stands as one entry, and its name keeps the slash.
  const nameStart = file.path.lastIndexOf("/", file.path.length - 2) + 1;
  const state = stateOf(file);
  const tokens = file.mode === "dropped" ? 0 : file.tokens;
  let folder = root;
  for (let start = 0; ;) {
    folder.counts[state] += 1;
    folder.tokens += tokens;
    if (start >= nameStart) break;
    const end = file.path.indexOf("/", start) + 1;
    folder = folderIn(folder, file.path.slice(0, end), file.path.slice(start, end - 1));
    start = end;
  }
  const name = file.path.slice(nameStart);
  folder.files.push({ kind: "file", path: file.path, name, sortKey: sortKeyOf(name), parent: folder, file, state });
}

/** In whose order file9 comes before File10. Made once: a comparison that knows numbers would take long for a large folder. */
function sortKeyOf(name: string): string {
  return name.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
}

function folderIn(parent: FolderNode, path: string, name: string): FolderNode {
  const known = parent.folders.get(name);
  if (known !== undefined) return known;
  const folder = newFolder(path, name, parent);
  parent.folders.set(name, folder);
  return folder;
}

function newFolder(path: string, name: string, parent: FolderNode | null): FolderNode {
  const counts = { full: 0, outline: 0, out: 0, excluded: 0 };
  return {
    kind: "folder",
    path,
    name,
    sortKey: sortKeyOf(name),
    parent,
    folders: new Map(),
    files: [],
    counts,
    tokens: 0,
  };
}

/** The one state that everything readable in a folder has; null: they differ. */
export function stateOfFolder({ counts }: FolderNode): FileState | null {
  const present = fileStates.filter((state) => state !== "excluded" && counts[state] > 0);
  if (present.length === 0) return "excluded";
  return present.length === 1 ? (present[0] ?? null) : null;
}

/** Folders first. At most `entriesAtOnce`, then one node that holds the rest. */
export function childrenOf(node: TreeNode, shape: TreeShape): TreeNode[] {
  if (node.kind === "file") return [];
  const folder = node.kind === "more" ? node.parent : node;
  const from = node.kind === "more" ? node.from : 0;
  const { state, order } = shape;
  const folders = [...folder.folders.values()].filter(({ counts }) => state === null || counts[state] > 0);
  const files = folder.files.filter((file) => state === null || file.state === state);
  const compare = order === "name" ? byName : byTokens;
  const entries: (FolderNode | FileNode)[] = [...folders.sort(compare), ...files.sort(compare)];
  const shown: TreeNode[] = entries.slice(from, from + entriesAtOnce);
  const rest = entries.length - from - shown.length;
  if (rest > 0) shown.push({ kind: "more", parent: folder, from: from + entriesAtOnce, count: rest });
  return shown;
}

export function tokensOf(node: FolderNode | FileNode): number {
  return node.kind === "folder" ? node.tokens : node.file.tokens;
}

function byName(a: FolderNode | FileNode, b: FolderNode | FileNode): number {
  const [left, right] = a.sortKey === b.sortKey ? [a.name, b.name] : [a.sortKey, b.sortKey];
  return comparePaths(left, right);
}

function byTokens(a: FolderNode | FileNode, b: FolderNode | FileNode): number {
  return tokensOf(b) - tokensOf(a) || byName(a, b);
}
