// Owns: which states of the session are kept in memory for which repository base, and when one is let go.
// Must never change an answer: a snapshot only saves reading again (house invariant 8).
import type { NativeSnapshot } from "./addonTypes";

/** A snapshot stands at a multiple of this (house section 3a). */
export const chunkTokens = 64;
const maxBases = 2;

interface Kept {
  /** The base's tokens; the snapshot holds those up to its position. */
  readonly base: Int32Array;
  readonly snapshot: NativeSnapshot;
}

export class Snapshots {
  readonly #limitBytes: number;
  /** Most recently used last. */
  #kept: Kept[] = [];

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  all(): readonly NativeSnapshot[] {
    return this.#kept.map((kept) => kept.snapshot);
  }

  /** Whether the state at the end of this base is kept; if so it counts as used now. */
  has(base: Int32Array): boolean {
    const index = this.#kept.findIndex((kept) => equal(kept.base, base));
    if (index < 0) return false;
    this.#kept.push(...this.#kept.splice(index, 1));
    return true;
  }

  /** Takes the snapshot over. The newest one is always kept, older ones as the limits allow. */
  keep(base: Int32Array, snapshot: NativeSnapshot): void {
    this.#kept.push({ base, snapshot });
    while (this.#kept.length > maxBases || (this.#kept.length > 1 && this.#bytes() > this.#limitBytes)) {
      this.#kept.shift()?.snapshot.close();
    }
  }

  /** The longest kept state that is a prefix of `tokens`. */
  reusable(tokens: Int32Array): number {
    return this.#kept.reduce((longest, { base, snapshot }) => {
      const position = snapshot.position();
      const matches = position <= tokens.length && equal(base.subarray(0, position), tokens.subarray(0, position));
      return matches ? Math.max(longest, position) : longest;
    }, 0);
  }

  clear(): void {
    for (const { snapshot } of this.#kept) snapshot.close();
    this.#kept = [];
  }

  #bytes(): number {
    return this.#kept.reduce((sum, { snapshot }) => sum + snapshot.bytes(), 0);
  }
}

export function equal(left: Int32Array, right: Int32Array): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}
