// Owns: which model folders the user knows, and what can be told of a folder without loading it. Must never load weights, and
// never write anything but the list that it is given a place for.
import { readdir, readFile, stat } from "node:fs/promises";
import * as path from "node:path";
import { failure } from "../protocol/errors";

/** Where the list of added folders is kept between sessions. Reading gives back whatever was written, or anything else. */
export interface FolderListStore {
  read(): unknown;
  write(folders: readonly string[]): PromiseLike<void>;
}

const mostFolders = 100;

export class ModelLibrary {
  readonly #store: FolderListStore;

  constructor(
    /** The model that comes with the product; always the first, and never removed. */
    readonly embedded: string,
    store: FolderListStore,
  ) {
    this.#store = store;
  }

  folders(): readonly string[] {
    return [this.embedded, ...this.#added()];
  }

  async add(folder: string): Promise<void> {
    if (!this.folders().includes(folder)) await this.#store.write([...this.#added(), folder].slice(-mostFolders));
  }

  async remove(folder: string): Promise<void> {
    await this.#store.write(this.#added().filter((added) => added !== folder));
  }

  #added(): readonly string[] {
    const list = this.#store.read();
    if (!Array.isArray(list)) return [];
    return list.filter((item): item is string => typeof item === "string" && item !== "" && item !== this.embedded);
  }
}

/** What a folder's own files say. Whether it can be loaded, only the engine can tell. */
export interface FolderFacts {
  readonly weightBytes: number;
  readonly contextTokens: number | null;
}

const configLimitBytes = 1024 * 1024;

/** Rejects with "file-missing", "file-unreadable" or "config-invalid". */
export async function inspectModelFolder(folder: string): Promise<FolderFacts> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw failure("file-missing", folder, "a folder", reasonOf(cause));
  });
  if (!names.includes("config.json")) throw failure("file-missing", path.join(folder, "config.json"));
  const weightFiles = names.filter((name) => name.endsWith(".safetensors"));
  if (weightFiles.length === 0) throw failure("file-missing", path.join(folder, "*.safetensors"));
  const sizes = await Promise.all(weightFiles.map(async (name) => (await stat(path.join(folder, name))).size));
  const weightBytes = sizes.reduce((sum, bytes) => sum + bytes, 0);
  return { weightBytes, contextTokens: await readContextTokens(path.join(folder, "config.json")) };
}

async function readContextTokens(file: string): Promise<number | null> {
  const { size } = await stat(file);
  if (size > configLimitBytes) {
    throw failure("config-invalid", file, `at most ${String(configLimitBytes)} bytes`, String(size));
  }
  let config: unknown;
  try {
    config = JSON.parse(await readFile(file, "utf8"));
  } catch (cause) {
    throw failure("config-invalid", file, "JSON", reasonOf(cause));
  }
  if (typeof config !== "object" || config === null) throw failure("config-invalid", file, "an object");
  const tokens = (config as Readonly<Record<string, unknown>>)["max_position_embeddings"];
  return typeof tokens === "number" && Number.isSafeInteger(tokens) && tokens > 0 ? tokens : null;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
