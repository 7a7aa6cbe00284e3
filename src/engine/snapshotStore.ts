// Owns: the snapshots on a disk: which files there are, writing one, reading a line of them, and letting go of what is worth least.
// Must never fail a request: a disk that is full or broken ends the writing, a file that is not whole is removed, and in both cases
// the text is read again (house invariant 8).
import { randomBytes } from "node:crypto";
import { RingsideFailure } from "../protocol/errors";
import type { DiskFile, SnapshotDisk } from "./snapshotDisk";
import {
  checkModel,
  checkSection,
  encodeSnapshot,
  fileBytesOf,
  headerBytes,
  pageTokens,
  parseHeader,
  sha256,
} from "./snapshotFile";
import type { SectionName, SnapshotContent, SnapshotHeader, SnapshotModel, SnapshotName } from "./snapshotFile";
import { keyCharacters } from "./snapshotKeys";

const suffix = ".snapshot";
const finalName = new RegExp(`^[0-9a-f]{${String(keyCharacters)}}\\.snapshot$`);
const temporaryName = /^[0-9a-f]+\.snapshot\.tmp\.\d+\.[0-9a-f]+$/;
/** A state that was not used for so long is half as likely to be used again. */
const halfLifeMs = 24 * 60 * 60 * 1_000;
const removedAtOnce = 64;
/** Between pieces of this size other work gets its turn. */
const pieceBytes = 8 * 1024 * 1024;

export interface StoredSnapshot {
  readonly key: string;
  readonly parent: string;
  readonly identity: string;
  readonly label: string;
  readonly fromTokens: number;
  readonly toTokens: number;
  readonly fileBytes: number;
  readonly usedMs: number;
}

/** The parts of a whole state: all its tokens, and pages in runs from the first one on. */
export interface WholeSnapshot {
  readonly tokens: Int32Array;
  readonly state: Uint8Array;
  readonly pages: readonly Uint8Array[];
}

export interface StoreOptions {
  readonly disk: SnapshotDisk;
  readonly limitBytes: number;
  readonly nowMs?: () => number;
  /** Told once, when nothing is written any more, with the system's code. */
  readonly onDisabled?: (code: string) => void;
  /** Of files that were not whole. */
  readonly onDamaged?: (key: string) => void;
}

export class SnapshotStore {
  readonly #options: StoreOptions;
  readonly #nowMs: () => number;
  readonly #files = new Map<string, StoredSnapshot>();
  #disabled = false;

  private constructor(options: StoreOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? Date.now;
  }

  /** Never fails: a folder that cannot be used is one that is never written to. */
  static async open(options: StoreOptions): Promise<SnapshotStore> {
    const store = new SnapshotStore(options);
    try {
      await options.disk.prepare();
      const names = await options.disk.list();
      await store.#remove(names.filter((name) => isAbandoned(name)));
      for (const name of names.filter((candidate) => finalName.test(candidate))) await store.#learn(name);
      await store.#removeOrphans();
    } catch (cause) {
      store.#disable(cause);
    }
    return store;
  }

  get writable(): boolean {
    return !this.#disabled;
  }

  get bytes(): number {
    let bytes = 0;
    for (const { fileBytes } of this.#files.values()) bytes += fileBytes;
    return bytes;
  }

  list(): readonly StoredSnapshot[] {
    return [...this.#files.values()];
  }

  has(key: string): boolean {
    return this.#files.has(key);
  }

  /**
   * Keeps a state whose parent, if any, is kept. `inUse`: keys that must not go to make room. False: it is not kept, because the
   * budget has no room for it, its parent is gone, or the disk failed.
   */
  async put(
    model: SnapshotModel,
    name: SnapshotName,
    content: SnapshotContent,
    inUse: ReadonlySet<string> = new Set(),
  ): Promise<boolean> {
    if (this.#files.has(name.key)) return true;
    if (this.#disabled || (name.parent !== "" && !this.#files.has(name.parent))) return false;
    const fileBytes = fileBytesOf(model, name.fromTokens, name.toTokens);
    if (fileBytes > this.#options.limitBytes) return false;
    try {
      const keep = new Set([...inUse, name.parent]);
      if (!(await this.#write(model, name, content, () => this.#makeRoom(keep)))) return false;
    } catch (cause) {
      // A file or the folder is gone when someone else deletes what is kept; the disk is none the worse for it.
      if (!isMissing(cause)) this.#disable(cause);
      return false;
    }
    const { key, parent, label, fromTokens, toTokens } = name;
    const { identity } = model;
    this.#files.set(key, { key, parent, identity, label, fromTokens, toTokens, fileBytes, usedMs: this.#nowMs() });
    return true;
  }

  /** The state of that name with all it follows; null when a file of the line is missing or not whole, and then that file is gone. */
  async get(model: SnapshotModel, key: string): Promise<WholeSnapshot | null> {
    const line = this.#lineOf(key);
    if (line === null) return null;
    const tokens = new Int32Array(line.at(-1)?.toTokens ?? 0);
    const pages: Uint8Array[] = [];
    let state: Uint8Array = new Uint8Array(0);
    for (const [index, entry] of line.entries()) {
      const isLast = index === line.length - 1;
      const read = await this.#read(model, entry, isLast);
      if (read === null) {
        await this.#drop(entry.key);
        return null;
      }
      tokens.set(read.tokens, entry.fromTokens);
      // A page that this state shares with the one before lies in both files, and whole in the later one.
      if (entry.fromTokens % pageTokens !== 0) trimLastPage(pages, model.pageBytes);
      pages.push(read.pages);
      state = read.state;
    }
    for (const entry of line) await this.#use(entry);
    return { tokens, state, pages };
  }

  /** Of a state that turned out to be wrong in itself; what follows it goes too. */
  async forget(key: string): Promise<void> {
    await this.#drop(key);
  }

  async clear(): Promise<void> {
    this.#files.clear();
    await this.#options.disk.prepare();
    await this.#remove((await this.#options.disk.list()).filter((name) => name.includes(suffix)));
  }

  /**
   * The file has its length before anyone looks for room: of two processes that write at a time at least the one that looks
   * last sees both files, so that together they stay within the budget without waiting for each other.
   */
  async #write(
    model: SnapshotModel,
    name: SnapshotName,
    content: SnapshotContent,
    makeRoom: () => Promise<boolean>,
  ): Promise<boolean> {
    const { disk } = this.#options;
    const hashes: Record<SectionName, string> = {
      tokens: sha256(new Uint8Array(content.tokens.buffer, content.tokens.byteOffset, content.tokens.byteLength)),
      state: sha256(content.state),
      pages: sha256(content.pages),
    };
    const pieces = encodeSnapshot(model, name, content, hashes);
    const target = `${name.key}${suffix}`;
    const temporary = `${target}.tmp.${String(process.pid)}.${randomBytes(8).toString("hex")}`;
    const file = await disk.create(temporary);
    try {
      try {
        await file.reserve(fileBytesOf(model, name.fromTokens, name.toTokens));
        if (!(await makeRoom()) || (name.parent !== "" && !this.#files.has(name.parent))) {
          await disk.remove(temporary);
          return false;
        }
        let offset = 0;
        for (const piece of pieces) {
          for (let begin = 0; begin < piece.byteLength; begin += pieceBytes) {
            await file.write(piece.subarray(begin, begin + pieceBytes), offset + begin);
          }
          offset += piece.byteLength;
        }
        await file.sync();
      } finally {
        await file.close();
      }
      await disk.rename(temporary, target);
    } catch (cause) {
      // After a failed flush the system may have dropped the data and say otherwise the next time: the file is given up.
      await disk.remove(temporary).catch(() => undefined);
      throw cause;
    }
    try {
      await disk.syncFolder();
    } catch (cause) {
      await disk.remove(target).catch(() => undefined);
      throw cause;
    }
    return true;
  }

  async #read(model: SnapshotModel, entry: StoredSnapshot, withState: boolean): Promise<SnapshotContent | null> {
    return this.#withFile(entry.key, async (file, header) => {
      checkModel(header, model, entry.key);
      if (header.fromTokens !== entry.fromTokens || header.parent !== entry.parent) return null;
      const section = async (name: SectionName): Promise<Uint8Array> => {
        // The file is as long as this, and the model asks for it: checkModel() and parseHeader() have compared both.
        const bytes = new Uint8Array(header.sections[name].bytes);
        const read = await file.read(bytes, header.sections[name].offset);
        checkSection(name, header.sections[name], bytes.subarray(0, read));
        return bytes;
      };
      const tokens = await section("tokens");
      const state = withState ? await section("state") : new Uint8Array(0);
      const pages = await section("pages");
      return { tokens: new Int32Array(tokens.buffer, 0, tokens.byteLength / 4), state, pages };
    });
  }

  /** null: not there, not readable, or not what its header says. */
  async #withFile<T>(
    key: string,
    work: (file: DiskFile, header: SnapshotHeader) => Promise<T | null>,
  ): Promise<T | null> {
    let file: DiskFile | null = null;
    try {
      file = await this.#options.disk.open(`${key}${suffix}`);
      const { bytes: fileBytes } = await file.stat();
      const bytes = new Uint8Array(headerBytes);
      const read = await file.read(bytes, 0);
      return await work(file, parseHeader(bytes.subarray(0, read), fileBytes));
    } catch (cause) {
      if (cause instanceof RingsideFailure) this.#options.onDamaged?.(key);
      return null;
    } finally {
      await file?.close().catch(() => undefined);
    }
  }

  async #learn(name: string): Promise<void> {
    const key = keyOf(name);
    const learnt = await this.#withFile(key, async (file, header) => {
      const { modifiedMs: usedMs } = await file.stat();
      return header.key === key ? { ...header, usedMs } : null;
    });
    if (learnt === null) await this.#remove([name]);
    else this.#files.set(key, learnt);
  }

  /** From the beginning to that state. */
  #lineOf(key: string): readonly StoredSnapshot[] | null {
    const line: StoredSnapshot[] = [];
    for (let entry = this.#files.get(key); entry !== undefined; entry = this.#files.get(entry.parent)) {
      const next = line[0];
      if (next !== undefined && (next.fromTokens !== entry.toTokens || next.identity !== entry.identity)) return null;
      line.unshift(entry);
      if (entry.parent === "") return line;
    }
    return null;
  }

  async #use(entry: StoredSnapshot): Promise<void> {
    this.#files.set(entry.key, { ...entry, usedMs: this.#nowMs() });
    await this.#options.disk.touch(`${entry.key}${suffix}`).catch(() => undefined);
  }

  /** Lets go of ends of lines, those first that cost least to read again for their size and are least likely to be used. */
  async #makeRoom(inUse: ReadonlySet<string>): Promise<boolean> {
    const underWayBytes = await this.#look();
    while (this.bytes + underWayBytes > this.#options.limitBytes) {
      const parents = new Set([...this.#files.values()].map(({ parent }) => parent));
      const ends = [...this.#files.values()].filter(({ key }) => !parents.has(key) && !inUse.has(key));
      const [least] = ends.sort((left, right) => this.#worth(left) - this.#worth(right));
      if (least === undefined) return false;
      if (!(await this.#wasUsedSince(least))) await this.#drop(least.key);
    }
    return true;
  }

  /** Learns what other processes wrote and removed. Returns the length of the files that are being written, here or there. */
  async #look(): Promise<number> {
    const { disk } = this.#options;
    const names = new Set(await disk.list());
    for (const { key } of this.list()) if (!names.has(`${key}${suffix}`)) this.#files.delete(key);
    let underWayBytes = 0;
    for (const name of names) {
      if (temporaryName.test(name)) {
        if (isOfDeadProcess(name)) await this.#remove([name]);
        else underWayBytes += await this.#lengthOf(name);
      } else if (finalName.test(name) && !this.#files.has(keyOf(name))) await this.#learn(name);
    }
    // A parent that got its name while the folder was being listed may be missing in the list.
    for (const { parent } of this.list()) {
      if (parent !== "" && !this.#files.has(parent)) await this.#learn(`${parent}${suffix}`);
    }
    await this.#removeOrphans();
    return underWayBytes;
  }

  /** Of a file that is being written; one that has got its final name meanwhile is learnt. */
  async #lengthOf(temporary: string): Promise<number> {
    let file: DiskFile | null = null;
    try {
      file = await this.#options.disk.open(temporary);
      return (await file.stat()).bytes;
    } catch {
      if (!this.#files.has(keyOf(temporary))) await this.#learn(`${keyOf(temporary)}${suffix}`);
      return 0;
    } finally {
      await file?.close().catch(() => undefined);
    }
  }

  /** Another process may have used what this one has not. */
  async #wasUsedSince({ key, usedMs }: StoredSnapshot): Promise<boolean> {
    const used = await this.#withFile(key, async (file) => (await file.stat()).modifiedMs);
    const known = this.#files.get(key);
    if (used === null || known === undefined || used <= usedMs) return false;
    this.#files.set(key, { ...known, usedMs: used });
    return true;
  }

  #worth({ fromTokens, toTokens, fileBytes, usedMs }: StoredSnapshot): number {
    const chance = 2 ** (-Math.max(0, this.#nowMs() - usedMs) / halfLifeMs);
    return ((toTokens - fromTokens) * chance) / fileBytes;
  }

  /** Forgets a state and what follows it, and removes their files. */
  async #drop(key: string): Promise<void> {
    const dropped = [key];
    for (const lost of dropped) {
      this.#files.delete(lost);
      for (const { key: child, parent } of this.#files.values()) if (parent === lost) dropped.push(child);
    }
    await this.#remove(dropped.map((lost) => `${lost}${suffix}`));
  }

  async #removeOrphans(): Promise<void> {
    for (const { key } of this.list()) if (this.#files.has(key) && this.#lineOf(key) === null) await this.#drop(key);
  }

  async #remove(names: readonly string[]): Promise<void> {
    for (let begin = 0; begin < names.length; begin += removedAtOnce) {
      const some = names.slice(begin, begin + removedAtOnce);
      // One that is gone already, or cannot go, is no loss: it is not in the list any more.
      await Promise.all(some.map((name) => this.#options.disk.remove(name).catch(() => undefined)));
    }
  }

  #disable(cause: unknown): void {
    if (this.#disabled) return;
    this.#disabled = true;
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown";
    this.#options.onDisabled?.(code);
  }
}

function trimLastPage(pages: Uint8Array[], pageBytes: number): void {
  const last = pages.pop();
  if (last !== undefined) pages.push(last.subarray(0, last.byteLength - pageBytes));
}

/** Of a snapshot's file under its final name or the one it is written under. */
function keyOf(name: string): string {
  return name.slice(0, keyCharacters);
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "ENOENT";
}

/** A file that was being written by a process that is no more, when this one starts. */
function isAbandoned(name: string): boolean {
  return temporaryName.test(name) && (processOf(name) === process.pid || isOfDeadProcess(name));
}

function isOfDeadProcess(temporary: string): boolean {
  try {
    process.kill(processOf(temporary), 0);
    return false;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "ESRCH";
  }
}

function processOf(temporary: string): number {
  return Number(/\.tmp\.(\d+)\./.exec(temporary)?.[1]);
}
