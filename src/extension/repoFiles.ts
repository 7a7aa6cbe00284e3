// Owns: the workspace's folders as one repository, and the way from its paths to addresses that VS Code opens. Must never leave
// those folders: a path that could is refused, whoever made it.
import { FileType, Uri, workspace } from "vscode";
import type { WorkspaceFolder } from "vscode";
import { joinHistories } from "../context/repoReader";
import type { ChangeHistory, RepoEntry, RepoFileStat, RepoReader } from "../context/repoReader";
import { GitHistory } from "../git/gitHistory";

interface Root {
  readonly name: string;
  readonly uri: Uri;
  /** null: the folder is not on this machine's disk. */
  readonly git: GitHistory | null;
}

export class WorkspaceRepository implements RepoReader {
  readonly name: string;
  readonly #roots: readonly Root[];

  constructor(folders: readonly WorkspaceFolder[], workspaceName: string | undefined) {
    this.#roots = uniquelyNamed(folders);
    const first = this.#roots[0];
    if (first === undefined) throw new Error("a repository needs a folder");
    this.name = this.#roots.length === 1 ? first.name : (workspaceName ?? first.name);
  }

  async readDirectory(path: string): Promise<readonly RepoEntry[]> {
    if (path === "" && this.#roots.length > 1) {
      return this.#roots.map(({ name }) => ({ name, kind: "directory" }));
    }
    const entries = await workspace.fs.readDirectory(this.uri(path));
    return entries.map(([name, type]) => ({ name, kind: kindOf(type) }));
  }

  async stat(path: string): Promise<RepoFileStat> {
    const { size, mtime, type } = await workspace.fs.stat(this.uri(path));
    if (kindOf(type) !== "file") throw new Error(`${path} is not a file`);
    return { bytes: size, modifiedMs: mtime };
  }

  async readFile(path: string): Promise<Uint8Array> {
    return workspace.fs.readFile(this.uri(path));
  }

  /** All folders' histories as one, while the workspace is trusted: git reads the configuration that lies in them. */
  async history(signal?: AbortSignal): Promise<ChangeHistory | null> {
    if (!workspace.isTrusted) return null;
    const histories = await Promise.all(this.#roots.map(async ({ git }) => (await git?.read(signal)) ?? null));
    if (this.#roots.length === 1) return histories[0] ?? null;
    return joinHistories(this.#roots.map(({ name }, index) => [name, histories[index] ?? null]));
  }

  /** Throws for a path outside the repository. */
  uri(path: string): Uri {
    const parts = path === "" ? [] : path.split("/");
    if (parts.some(isNoName)) throw new Error("the path leaves the repository");
    if (this.#roots.length === 1) return Uri.joinPath(this.#root(0).uri, ...parts);
    const index = this.#roots.findIndex(({ name }) => name === parts[0]);
    return Uri.joinPath(this.#root(index).uri, ...parts.slice(1));
  }

  /** The path of an open document; null when it lies in none of the folders. */
  pathOf(uri: Uri): string | null {
    const folder = workspace.getWorkspaceFolder(uri);
    const root = this.#roots.find((candidate) => candidate.uri.toString() === folder?.uri.toString());
    if (root === undefined || !uri.path.startsWith(`${root.uri.path}/`)) return null;
    const inside = uri.path.slice(root.uri.path.length + 1);
    return this.#roots.length === 1 ? inside : `${root.name}/${inside}`;
  }

  /** The folders of the workspace as paths begin with them: "", or each name with "/". */
  get roots(): readonly string[] {
    return this.#roots.length === 1 ? [""] : this.#roots.map(({ name }) => `${name}/`);
  }

  rootOf(path: string): { readonly root: string; readonly inside: string } {
    const root = this.roots.find((candidate) => path.startsWith(candidate)) ?? "";
    return { root, inside: path.slice(root.length) };
  }

  #root(index: number): Root {
    const root = this.#roots[index];
    if (root === undefined) throw new Error("the path names no folder of the workspace");
    return root;
  }
}

/** Two folders of one name must not hide one another. */
function uniquelyNamed(folders: readonly WorkspaceFolder[]): Root[] {
  const taken = new Set<string>();
  return folders.map(({ name, uri }) => {
    const plain = name.replaceAll("/", "-") === "" ? "folder" : name.replaceAll("/", "-");
    let unique = plain;
    for (let count = 2; taken.has(unique); count++) unique = `${plain}-${String(count)}`;
    taken.add(unique);
    return { name: unique, uri, git: uri.scheme === "file" ? new GitHistory(uri.fsPath) : null };
  });
}

// On Windows a backslash separates folders; elsewhere it may stand in a name.
const separators = process.platform === "win32" ? /[\\/:]/ : /\//;

function isNoName(part: string): boolean {
  return part === "" || part === "." || part === ".." || part.includes("\0") || separators.test(part);
}

function kindOf(type: FileType): RepoEntry["kind"] {
  if ((type & FileType.SymbolicLink) !== 0) return "symlink";
  if ((type & FileType.File) !== 0) return "file";
  return (type & FileType.Directory) !== 0 ? "directory" : "other";
}
