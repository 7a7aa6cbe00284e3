// Owns: the layouts of bases on a disk (docs/SNAPSHOTS.md), beside the snapshots whose beginnings they describe: one file each,
// written as a snapshot is, and checked before it is believed. Must never fail a request: what cannot be written, or is not whole,
// is as if it had never been.
import { randomBytes } from "node:crypto";
import { failure } from "../protocol/errors";
import { FolderDisk } from "./snapshotDisk";
import type { DiskFile, SnapshotDisk } from "./snapshotDisk";
import { labelBytes, sha256, shortened } from "./snapshotFile";

const magic = "RINGLAYT";
export const layoutFormat = 1;
const hashBytes = 32;
const labelOffset = 56;
const contentHashOffset = labelOffset + labelBytes;
const checksumOffset = contentHashOffset + hashBytes;
export const layoutHeaderBytes = checksumOffset + hashBytes;
/** The text of a window of ten million tokens and more. */
const contentBytesAtMost = 64 * 1024 * 1024;
const filesAtMost = 64;
const finalName = /^[0-9a-f]{64}\.layout$/;
const temporaryName = /^[0-9a-f]{64}\.layout\.tmp\.[0-9a-f]+$/;
/** Nobody takes so long to write one. */
const abandonedMs = 60 * 60 * 1_000;

/** Those of one repository. Satisfies the port of the context's room. */
export class KeptLayouts {
  readonly #disk: SnapshotDisk;
  readonly #repository: string;
  /** The last save, so that one waits for the other. */
  #saving: Promise<void> = Promise.resolve();

  constructor(disk: SnapshotDisk, repository: string) {
    this.#disk = disk;
    this.#repository = repository;
  }

  async load(name: string): Promise<string | undefined> {
    await this.#saving;
    const key = this.#key(name);
    try {
      const content = await readLayout(this.#disk, key);
      await this.#disk.touch(`${key}.layout`);
      return content;
    } catch {
      return undefined;
    }
  }

  async save(name: string, content: string): Promise<void> {
    this.#saving = this.#saving.then(() => this.#save(this.#key(name), content)).catch(() => undefined);
    await this.#saving;
  }

  async #save(key: string, content: string): Promise<void> {
    const bytes = Buffer.from(content, "utf8");
    if (bytes.byteLength > contentBytesAtMost) return;
    await this.#disk.prepare();
    await removeOldest(this.#disk, `${key}.layout`);
    const temporary = `${key}.layout.tmp.${randomBytes(8).toString("hex")}`;
    const file = await this.#disk.create(temporary);
    try {
      try {
        await file.write(headerOf(key, this.#repository, bytes), 0);
        await file.write(bytes, layoutHeaderBytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.#disk.rename(temporary, `${key}.layout`);
    } catch (cause) {
      await this.#disk.remove(temporary).catch(() => undefined);
      throw cause;
    }
    await this.#disk.syncFolder();
  }

  #key(name: string): string {
    return sha256(Buffer.from(`${this.#repository}\n${name}`, "utf8"));
  }
}

export function layoutsIn(folder: string, repository: string): KeptLayouts {
  return new KeptLayouts(new FolderDisk(folder), repository);
}

/** All of them, or those of one repository. Returns how many bytes were freed. */
export async function clearLayouts(disk: SnapshotDisk, repository?: string): Promise<number> {
  let freed = 0;
  for (const name of await disk.list()) {
    const isUnfinished = temporaryName.test(name) && repository === undefined;
    if (!finalName.test(name) && !isUnfinished) continue;
    const { bytes, label } = await described(disk, name);
    if (repository !== undefined && label !== shortened(repository)) continue;
    await disk.remove(name).catch(() => undefined);
    freed += bytes;
  }
  return freed;
}

/** So that with one more there are not too many. */
async function removeOldest(disk: SnapshotDisk, coming: string): Promise<void> {
  const found: { readonly name: string; readonly usedMs: number }[] = [];
  for (const name of await disk.list()) {
    if (name === coming || !(finalName.test(name) || temporaryName.test(name))) continue;
    const { usedMs } = await described(disk, name);
    if (finalName.test(name)) found.push({ name, usedMs });
    else if (usedMs < Date.now() - abandonedMs) await disk.remove(name).catch(() => undefined);
  }
  found.sort((a, b) => b.usedMs - a.usedMs);
  for (const { name } of found.slice(filesAtMost - 1)) await disk.remove(name).catch(() => undefined);
}

/** Of a file that cannot be read: nothing. */
async function described(disk: SnapshotDisk, name: string): Promise<{ bytes: number; usedMs: number; label: string }> {
  return withFile(disk, name, async (file) => {
    const { bytes, modifiedMs: usedMs } = await file.stat();
    const header = Buffer.alloc(layoutHeaderBytes);
    await file.read(header, 0);
    return { bytes, usedMs, label: labelIn(header) };
  }).catch(() => ({ bytes: 0, usedMs: 0, label: "" }));
}

async function withFile<T>(disk: SnapshotDisk, name: string, work: (file: DiskFile) => Promise<T>): Promise<T> {
  const file = await disk.open(name);
  try {
    return await work(file);
  } finally {
    await file.close().catch(() => undefined);
  }
}

async function readLayout(disk: SnapshotDisk, key: string): Promise<string> {
  return withFile(disk, `${key}.layout`, async (file) => {
    const { bytes: fileBytes } = await file.stat();
    const header = Buffer.alloc(layoutHeaderBytes);
    const read = await file.read(header, 0);
    const contentHash = checkHeader(header.subarray(0, read), key, fileBytes);
    const content = Buffer.alloc(fileBytes - layoutHeaderBytes);
    const contentRead = await file.read(content, layoutHeaderBytes);
    if (sha256(content.subarray(0, contentRead)) !== contentHash) malformed("content checksum", contentHash, "another");
    return content.toString("utf8");
  });
}

function headerOf(key: string, repository: string, content: Uint8Array): Buffer {
  const header = Buffer.alloc(layoutHeaderBytes);
  header.write(magic, 0, "latin1");
  header.writeUInt32LE(layoutFormat, 8);
  header.writeUInt32LE(layoutHeaderBytes, 12);
  header.write(key, 16, "hex");
  header.writeBigUInt64LE(BigInt(content.byteLength), 48);
  header.write(shortened(repository), labelOffset, labelBytes, "utf8");
  header.write(sha256(content), contentHashOffset, "hex");
  header.write(sha256(header.subarray(0, checksumOffset)), checksumOffset, "hex");
  return header;
}

/** Returns the hash of the content. Throws "file-malformed" for anything that headerOf() does not write. */
function checkHeader(header: Buffer, key: string, fileBytes: number): string {
  if (header.byteLength !== layoutHeaderBytes) malformed("header", layoutHeaderBytes, header.byteLength);
  if (header.toString("latin1", 0, 8) !== magic) malformed("magic", magic, "other bytes");
  const checksum = sha256(header.subarray(0, checksumOffset));
  if (header.toString("hex", checksumOffset) !== checksum) malformed("header checksum", checksum, "another");
  if (header.readUInt32LE(8) !== layoutFormat) malformed("format", layoutFormat, header.readUInt32LE(8));
  if (header.readUInt32LE(12) !== layoutHeaderBytes) malformed("header", layoutHeaderBytes, header.readUInt32LE(12));
  if (header.toString("hex", 16, 48) !== key) malformed("name", key, "another");
  const contentBytes = header.readBigUInt64LE(48);
  if (contentBytes > contentBytesAtMost || Number(contentBytes) !== fileBytes - layoutHeaderBytes) {
    malformed("length", fileBytes - layoutHeaderBytes, String(contentBytes));
  }
  return header.toString("hex", contentHashOffset, checksumOffset);
}

function labelIn(header: Buffer): string {
  return header.toString("utf8", labelOffset, contentHashOffset).replace(/\0+$/, "");
}

function malformed(field: string, expected: string | number, actual: string | number): never {
  throw failure("file-malformed", `layout ${field}`, String(expected), String(actual));
}
