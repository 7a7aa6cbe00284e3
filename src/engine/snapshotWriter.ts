// Owns: bringing states from memory to the disk, beside the requests and never in their way: what is not written in time is lost.
import type { NativeSnapshot } from "./addonTypes";
import { firstPage } from "./snapshotFile";
import type { SnapshotModel } from "./snapshotFile";
import { boundaryAt, chunkTokens, keyAt } from "./snapshotKeys";
import type { SnapshotStore } from "./snapshotStore";

/** The prompt that a state belongs to. */
export interface Line {
  readonly tokens: Int32Array;
  readonly keys: readonly string[];
  readonly label: string;
}

export class SnapshotWriter {
  readonly #store: SnapshotStore;
  readonly #model: SnapshotModel;
  readonly #waiting: { readonly line: Line; readonly snapshot: NativeSnapshot }[] = [];
  #running: Promise<void> | null = null;

  constructor(store: SnapshotStore, model: SnapshotModel) {
    this.#store = store;
    this.#model = model;
  }

  /** In ascending order along a line. A snapshot that is closed meanwhile is not written. */
  add(line: Line, snapshot: NativeSnapshot): void {
    const key = keyAt(line.keys, snapshot.position());
    if (key === undefined || this.#store.has(key) || !this.#store.writable) return;
    this.#waiting.push({ line, snapshot });
    this.#running ??= this.#write().finally(() => {
      this.#running = null;
    });
  }

  /** What waits is forgotten; resolves when nothing is being written. */
  async stop(): Promise<void> {
    this.#waiting.length = 0;
    await this.#running;
  }

  /** Resolves when all that waits is written. */
  async written(): Promise<void> {
    await this.#running;
  }

  async #write(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      // The request that brought it goes on first.
      await new Promise((resolve) => setImmediate(resolve));
      await this.#writeOne(next.line, next.snapshot);
    }
  }

  async #writeOne({ tokens, keys, label }: Line, snapshot: NativeSnapshot): Promise<void> {
    const toTokens = snapshot.position();
    const key = keyAt(keys, toTokens);
    if (key === undefined) return;
    const fromTokens = this.#keptBefore(keys, toTokens);
    const parts = snapshot.exportParts(firstPage(fromTokens));
    if (!parts.ok) return;
    const name = { key, parent: keyAt(keys, fromTokens) ?? "", fromTokens, toTokens, label };
    const content = { tokens: tokens.slice(fromTokens, toTokens), ...parts.value };
    await this.#store.put(this.#model, name, content, new Set(keys));
  }

  #keptBefore(keys: readonly string[], toTokens: number): number {
    for (let boundary = boundaryAt(toTokens - 1); boundary >= chunkTokens; boundary -= chunkTokens) {
      if (this.#store.has(keyAt(keys, boundary) ?? "")) return boundary;
    }
    return 0;
  }
}
