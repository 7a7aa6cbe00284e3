// Owns: the states kept in memory: a tree, because prompts share their beginnings, named by what was read (snapshotKeys.ts).
// Must never change an answer: a snapshot only saves reading again (house invariant 8).
import type { NativeSnapshot } from "./addonTypes";
import { boundaryAt, chunkTokens, keyAt } from "./snapshotKeys";

export interface StateSizes {
  readonly stateBytes: number;
  readonly kvBytesPerToken: number;
}

interface Kept {
  readonly key: string;
  readonly toTokens: number;
  readonly snapshot: NativeSnapshot;
  /** The state kept before it on its line; null: none. */
  parent: Kept | null;
  /** The use at which it served, or stood before what served. */
  used: number;
}

export interface Found {
  readonly boundary: number;
  readonly snapshot: NativeSnapshot;
}

export class Snapshots {
  readonly #limitBytes: number;
  readonly #sizes: StateSizes;
  readonly #kept = new Map<string, Kept>();
  #uses = 0;
  /** The state that the conversation's next question begins with. */
  #standing: string | undefined;

  constructor(limitBytes: number, sizes: StateSizes) {
    this.#limitBytes = limitBytes;
    this.#sizes = sizes;
  }

  has(key: string): boolean {
    return this.#kept.has(key);
  }

  get count(): number {
    return this.#kept.size;
  }

  /** Keys and values are shared along a line, so each state counts those since the one before it. */
  get bytes(): number {
    let bytes = 0;
    for (const kept of this.#kept.values()) bytes += this.#sizes.stateBytes + this.#rowsBytes(kept);
    return bytes;
  }

  /** The longest kept beginning of a prompt with these keys. */
  longest(keys: readonly string[]): Found | null {
    const kept = this.#longest(keys);
    return kept === null ? null : { boundary: kept.toTokens, snapshot: kept.snapshot };
  }

  /** The same when a request begins: it and all before it count as used by this request. */
  use(keys: readonly string[]): Found | null {
    this.#uses += 1;
    for (let used = this.#longest(keys); used !== null; used = used.parent) used.used = this.#uses;
    return this.longest(keys);
  }

  /** What is read beside the conversation never costs the state of that name; undefined: there is none. */
  protect(key: string | undefined): void {
    this.#standing = key;
  }

  /** Takes the snapshot over, and closes it when that state is kept already or has no room beside the protected one. */
  keep(keys: readonly string[], snapshot: NativeSnapshot): void {
    const toTokens = snapshot.position();
    const key = keyAt(keys, toTokens);
    if (key === undefined || this.#kept.has(key)) {
      snapshot.close();
      return;
    }
    const kept: Kept = { key, toTokens, snapshot, parent: this.#before(keys, toTokens), used: this.#uses };
    for (const other of this.#kept.values()) {
      if (other.toTokens > toTokens && keyAt(keys, other.toTokens) === other.key && other.parent === kept.parent) {
        other.parent = kept;
      }
    }
    this.#kept.set(key, kept);
    while (this.bytes > this.#limitBytes && this.#kept.size > 1) this.#dropLeast(kept);
  }

  clear(): void {
    for (const { snapshot } of this.#kept.values()) snapshot.close();
    this.#kept.clear();
  }

  #longest(keys: readonly string[]): Kept | null {
    for (let index = keys.length - 1; index >= 0; index -= 1) {
      const kept = this.#kept.get(keys[index] ?? "");
      if (kept !== undefined) return kept;
    }
    return null;
  }

  #before(keys: readonly string[], toTokens: number): Kept | null {
    for (let boundary = boundaryAt(toTokens - 1); boundary >= chunkTokens; boundary -= chunkTokens) {
      const kept = this.#kept.get(keyAt(keys, boundary) ?? "");
      if (kept !== undefined) return kept;
    }
    return null;
  }

  /**
   * The least of (tokens to read again) × (chance of use) / (bytes that it frees). The newest state goes when only the protected one
   * is left beside it, and the protected one never.
   */
  #dropLeast(newest: Kept): void {
    const parents = new Set([...this.#kept.values()].map(({ parent }) => parent));
    const worth = (kept: Kept): number => {
      const freed = this.#sizes.stateBytes + (parents.has(kept) ? 0 : this.#rowsBytes(kept));
      return tokensOf(kept) / (1 + this.#uses - kept.used) / Math.max(1, freed);
    };
    let least: Kept | null = null;
    for (const kept of this.#kept.values()) {
      if (kept !== newest && kept.key !== this.#standing && (least === null || worth(kept) < worth(least)))
        least = kept;
    }
    least ??= newest;
    this.#kept.delete(least.key);
    for (const kept of this.#kept.values()) if (kept.parent === least) kept.parent = least.parent;
    least.snapshot.close();
  }

  #rowsBytes(kept: Kept): number {
    return tokensOf(kept) * this.#sizes.kvBytesPerToken;
  }
}

function tokensOf({ toTokens, parent }: Kept): number {
  return toTokens - (parent?.toTokens ?? 0);
}
