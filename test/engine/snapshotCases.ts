// Owns: states made from their keys, so that a test can tell a right one from a wrong one, and a disk in memory that remembers
// every call and what a crash may leave of them.
import { createHash } from "node:crypto";
import type { DiskFile, SnapshotDisk } from "../../src/engine/snapshotDisk";
import { firstPage, pagesOf } from "../../src/engine/snapshotFile";
import type { SnapshotContent, SnapshotModel, SnapshotName } from "../../src/engine/snapshotFile";
import { keyAt, prefixKeys } from "../../src/engine/snapshotKeys";
import type { WholeSnapshot } from "../../src/engine/snapshotStore";

export const smallModel: SnapshotModel = {
  identity: createHash("sha256").update("model").digest("hex"),
  stateBytes: 1_300,
  pageBytes: 1_700,
  contextTokens: 1 << 20,
};

/** Bytes that only this text gives. */
function bytesOf(text: string, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let begin = 0; begin < count; begin += 32) {
    const block = createHash("sha256")
      .update(`${text} ${String(begin)}`)
      .digest();
    bytes.set(block.subarray(0, Math.min(32, count - begin)), begin);
  }
  return bytes;
}

/** Tokens of a line; `branch`: from here on they are another line's. */
export function tokensOf(
  line: string,
  length: number,
  branch: readonly [from: number, line: string] = [length, line],
): Int32Array {
  return Int32Array.from({ length }, (_, position) => {
    const name = position < branch[0] ? line : branch[1];
    return (position * 31 + name.length * 1_009 + name.charCodeAt(0) * 7) % 16_000;
  });
}

/** The whole state after these tokens. A page's bytes depend on what was read up to its end, or to the state's. */
export function wholeOf(model: SnapshotModel, tokens: Int32Array): WholeSnapshot {
  const keys = prefixKeys("", tokens);
  const key = keyAt(keys, tokens.length) ?? "";
  const pages = Array.from({ length: pagesOf(0, tokens.length) }, (_, page) => {
    const end = Math.min(tokens.length, (page + 1) * 256);
    return bytesOf(`page ${keyAt(keys, end) ?? ""}`, model.pageBytes);
  });
  return { tokens, state: bytesOf(`state ${key}`, model.stateBytes), pages };
}

/** The name and the content of the file of that state, behind the one after `fromTokens`. */
export function fileOf(
  model: SnapshotModel,
  tokens: Int32Array,
  fromTokens: number,
  label = "repository",
): { readonly name: SnapshotName; readonly content: SnapshotContent } {
  const keys = prefixKeys("", tokens);
  const whole = wholeOf(model, tokens);
  return {
    name: {
      key: keyAt(keys, tokens.length) ?? "",
      parent: keyAt(keys, fromTokens) ?? "",
      fromTokens,
      toTokens: tokens.length,
      label,
    },
    content: {
      tokens: tokens.slice(fromTokens),
      state: whole.state,
      pages: Buffer.concat(whole.pages.slice(firstPage(fromTokens))),
    },
  };
}

export function isSame(found: WholeSnapshot, expected: WholeSnapshot): boolean {
  const joined = (pages: readonly Uint8Array[]): Buffer => Buffer.concat(pages);
  return (
    Buffer.from(found.tokens.buffer, found.tokens.byteOffset, found.tokens.byteLength).equals(
      Buffer.from(expected.tokens.buffer, expected.tokens.byteOffset, expected.tokens.byteLength),
    ) &&
    Buffer.from(found.state).equals(Buffer.from(expected.state)) &&
    joined(found.pages).equals(joined(expected.pages))
  );
}

interface Inode {
  bytes: Uint8Array;
}

type Call =
  | { readonly type: "link" | "unlink"; readonly name: string; readonly inode: Inode }
  | { readonly type: "rename"; readonly from: string; readonly name: string; readonly inode: Inode }
  | { readonly type: "write"; readonly inode: Inode; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly type: "sync"; readonly inode: Inode }
  | { readonly type: "syncFolder" };

const missing = (): Error => Object.assign(new Error("missing"), { code: "ENOENT" });

/** A folder in memory. `beforeCall` may throw, as a disk would. */
export class MemoryDisk implements SnapshotDisk {
  readonly names = new Map<string, Inode>();
  readonly calls: Call[] = [];
  beforeCall: (name: string) => void = () => undefined;

  async prepare(): Promise<void> {
    await this.#call("prepare");
  }

  async list(): Promise<readonly string[]> {
    await this.#call("list");
    return [...this.names.keys()];
  }

  async create(name: string): Promise<DiskFile> {
    await this.#call("create");
    if (this.names.has(name)) throw Object.assign(new Error("exists"), { code: "EEXIST" });
    const inode = { bytes: new Uint8Array(0) };
    this.names.set(name, inode);
    this.calls.push({ type: "link", name, inode });
    return this.#file(inode);
  }

  async open(name: string): Promise<DiskFile> {
    await this.#call("open");
    return this.#file(this.#inode(name));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#call("rename");
    const inode = this.#inode(from);
    this.names.delete(from);
    this.names.set(to, inode);
    this.calls.push({ type: "rename", from, name: to, inode });
  }

  async remove(name: string): Promise<void> {
    await this.#call("remove");
    const inode = this.#inode(name);
    this.names.delete(name);
    this.calls.push({ type: "unlink", name, inode });
  }

  async touch(): Promise<void> {
    await this.#call("touch");
  }

  async syncFolder(): Promise<void> {
    await this.#call("syncFolder");
    this.calls.push({ type: "syncFolder" });
  }

  #inode(name: string): Inode {
    const inode = this.names.get(name);
    if (inode === undefined) throw missing();
    return inode;
  }

  #file(inode: Inode): DiskFile {
    return {
      write: async (bytes, offset) => {
        await this.#call("write");
        inode.bytes = withBytes(inode.bytes, offset, bytes);
        this.calls.push({ type: "write", inode, offset, bytes: bytes.slice() });
      },
      read: async (into, offset) => {
        await this.#call("read");
        const some = inode.bytes.subarray(offset, offset + into.byteLength);
        into.set(some);
        return some.byteLength;
      },
      reserve: async (bytes) => {
        await this.#call("reserve");
        inode.bytes = withBytes(inode.bytes, bytes, new Uint8Array(0));
        this.calls.push({ type: "write", inode, offset: bytes, bytes: new Uint8Array(0) });
      },
      stat: async () => {
        await this.#call("stat");
        return { bytes: inode.bytes.byteLength, modifiedMs: 0 };
      },
      sync: async () => {
        await this.#call("sync");
        this.calls.push({ type: "sync", inode });
      },
      close: async () => {
        await this.#call("close");
      },
    };
  }

  #call(name: string): Promise<void> {
    this.beforeCall(name);
    return Promise.resolve();
  }
}

function withBytes(old: Uint8Array, offset: number, bytes: Uint8Array): Uint8Array {
  const grown = new Uint8Array(Math.max(old.byteLength, offset + bytes.byteLength));
  grown.set(old);
  grown.set(bytes, offset);
  return grown;
}

/** Numbers from 0 to 1, the same for the same seed: the minimal standard generator of Park and Miller. */
export function randomFrom(seed: number): () => number {
  let state = (seed % 2_147_483_646) + 1;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

/**
 * What a power cut after the first `count` calls may leave. Only what was flushed is sure: of other writes each sector of 512 bytes
 * or 4 KiB may be old or new, the file's length too, and of other changes of names any may have happened, in whatever order.
 */
export function afterCrash(calls: readonly Call[], count: number, random: () => number): MemoryDisk {
  const done = calls.slice(0, count);
  const sureNames = done.findLastIndex(({ type }) => type === "syncFolder");
  const names = new Map<string, Inode>();
  for (const [index, call] of done.entries()) {
    const isSure = index < sureNames;
    if (!isSure && random() < 0.5) continue;
    if (call.type === "link") names.set(call.name, call.inode);
    if (call.type === "unlink") names.delete(call.name);
    if (call.type === "rename") {
      names.delete(call.from);
      names.set(call.name, call.inode);
    }
  }
  const disk = new MemoryDisk();
  for (const [name, inode] of names) disk.names.set(name, { bytes: leftOf(done, inode, random) });
  return disk;
}

function leftOf(done: readonly Call[], inode: Inode, random: () => number): Uint8Array {
  const sure = done.findLastIndex((call) => call.type === "sync" && call.inode === inode);
  let left = new Uint8Array(0);
  for (const [index, call] of done.entries()) {
    if (call.type !== "write" || call.inode !== inode) continue;
    const { bytes, offset } = call;
    if (index < sure) {
      left = withBytes(left, offset, bytes) as Uint8Array<ArrayBuffer>;
      continue;
    }
    const sector = random() < 0.5 ? 512 : 4_096;
    for (let begin = 0; begin < bytes.byteLength; begin += sector) {
      const isNew = random() < 0.5;
      if (isNew)
        left = withBytes(left, offset + begin, bytes.subarray(begin, begin + sector)) as Uint8Array<ArrayBuffer>;
    }
    // A length may be on the disk before what it stands for, which then reads as zeros.
    if (random() < 0.5) left = withBytes(left, offset + bytes.byteLength, new Uint8Array(0)) as Uint8Array<ArrayBuffer>;
  }
  return left;
}
