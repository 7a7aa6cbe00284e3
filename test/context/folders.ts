// Folders of this machine made for one test, and repositories kept in memory for properties over many.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import type { TestContext } from "node:test";
import type { RepoEntry, RepoReader } from "../../src/context/repoReader";
import { RepositoryContext } from "../../src/context/repositoryContext";
import type { ContextOptions } from "../../src/context/repositoryContext";
import { secretsHere } from "../../src/context/secretRules";

/** Looked into on this thread, but for what `options` says. */
export function contextOf(reader: RepoReader, options: Partial<ContextOptions> = {}): RepositoryContext {
  return new RepositoryContext(reader, { secrets: secretsHere, ...options });
}

/** Ends with the test. */
export function folderWith(
  t: Pick<TestContext, "after">,
  files: Readonly<Record<string, string | Uint8Array>>,
): string {
  const folder = mkdtempSync(path.join(tmpdir(), "ringside-"));
  t.after(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  for (const [name, content] of Object.entries(files)) put(folder, name, content);
  return folder;
}

export function put(folder: string, name: string, content: string | Uint8Array): void {
  mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
  writeFileSync(path.join(folder, name), content);
}

/** A repository whose files are the entries of a map; a null content cannot be read. */
export class MemoryRepository implements RepoReader {
  readonly name = "memory";
  reads = 0;
  #listed: { files: number; folders: Map<string, Map<string, RepoEntry>> } | undefined;
  readonly files: Map<string, { content: Uint8Array | null; modifiedMs: number }>;

  constructor(files: Readonly<Record<string, string | Uint8Array | null>>) {
    this.files = new Map(
      Object.entries(files).map(([file, content]) => [
        file,
        { content: typeof content === "string" ? new TextEncoder().encode(content) : content, modifiedMs: 1_000 },
      ]),
    );
  }

  write(file: string, content: string, modifiedMs: number): void {
    if (!this.files.has(file)) this.#listed = undefined;
    this.files.set(file, { content: new TextEncoder().encode(content), modifiedMs });
  }

  remove(file: string): void {
    this.files.delete(file);
    this.#listed = undefined;
  }

  readDirectory(directory: string): Promise<readonly RepoEntry[]> {
    return Promise.resolve([...(this.#listing().get(directory)?.values() ?? [])].reverse());
  }

  /** Made once for a set of files: the tests with many files measure the scanner, not this. */
  #listing(): Map<string, Map<string, RepoEntry>> {
    if (this.#listed?.files === this.files.size) return this.#listed.folders;
    const folders = new Map<string, Map<string, RepoEntry>>();
    for (const file of this.files.keys()) {
      const parts = file.split("/");
      for (const [depth, name] of parts.entries()) {
        const folder = parts.slice(0, depth).join("/");
        const entries = folders.get(folder) ?? new Map<string, RepoEntry>();
        folders.set(folder, entries.set(name, { name, kind: depth === parts.length - 1 ? "file" : "directory" }));
      }
    }
    this.#listed = { files: this.files.size, folders };
    return folders;
  }

  stat(file: string): Promise<{ bytes: number; modifiedMs: number }> {
    const entry = this.files.get(file);
    if (entry === undefined) return Promise.reject(new Error(`${file} is not there`));
    return Promise.resolve({ bytes: entry.content?.length ?? 1, modifiedMs: entry.modifiedMs });
  }

  readFile(file: string): Promise<Uint8Array> {
    this.reads++;
    const content = this.files.get(file)?.content ?? null;
    return content === null ? Promise.reject(new Error(`${file} cannot be read`)) : Promise.resolve(content);
  }
}
