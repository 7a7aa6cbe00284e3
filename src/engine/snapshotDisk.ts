// Owns: the calls by which snapshots reach a disk, so that tests can let each of them fail and can replay a crash.
// Must never leave the folder it is given.
import { constants } from "node:fs";
import { mkdir, open, readdir, rename, unlink, utimes } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import * as path from "node:path";

export interface DiskFile {
  /** All of it, or it throws. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Fills `into`, or returns how much there was. */
  read(into: Uint8Array, offset: number): Promise<number>;
  /** Lets the file be so long before anything is in it, so that other processes count it. */
  reserve(bytes: number): Promise<void>;
  stat(): Promise<{ readonly bytes: number; readonly modifiedMs: number }>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** One folder. Names are file names, never paths. */
export interface SnapshotDisk {
  /** Makes the folder, for its owner alone, if it is not there. */
  prepare(): Promise<void>;
  list(): Promise<readonly string[]>;
  create(name: string): Promise<DiskFile>;
  open(name: string): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** Marks a file as used now. */
  touch(name: string): Promise<void>;
  /** After it returns, names that were given and taken before are so for good. */
  syncFolder(): Promise<void>;
}

export class FolderDisk implements SnapshotDisk {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
  }

  async list(): Promise<readonly string[]> {
    const entries = await readdir(this.#folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
  }

  async create(name: string): Promise<DiskFile> {
    return new OpenFile(await open(this.#at(name), "wx", 0o600));
  }

  async open(name: string): Promise<DiskFile> {
    return new OpenFile(await open(this.#at(name), constants.O_RDONLY | constants.O_NOFOLLOW));
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#at(from), this.#at(to));
  }

  async remove(name: string): Promise<void> {
    await unlink(this.#at(name));
  }

  async touch(name: string): Promise<void> {
    const now = new Date();
    await utimes(this.#at(name), now, now);
  }

  async syncFolder(): Promise<void> {
    const folder = await open(this.#folder, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  #at(name: string): string {
    return path.join(this.#folder, path.basename(name));
  }
}

class OpenFile implements DiskFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    while (done < bytes.byteLength) {
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.byteLength - done, offset + done);
      if (bytesWritten === 0) throw Object.assign(new Error("nothing was written"), { code: "EIO" });
      done += bytesWritten;
    }
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    let done = 0;
    while (done < into.byteLength) {
      const { bytesRead } = await this.#handle.read(into, done, into.byteLength - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async reserve(bytes: number): Promise<void> {
    await this.#handle.truncate(bytes);
  }

  async stat(): Promise<{ readonly bytes: number; readonly modifiedMs: number }> {
    const { size, mtimeMs } = await this.#handle.stat();
    return { bytes: size, modifiedMs: mtimeMs };
  }

  async sync(): Promise<void> {
    await this.#handle.sync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
