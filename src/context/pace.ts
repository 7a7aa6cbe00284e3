// Owns: how this room does long work without holding the thread: short slices, bounded concurrency, a stop at every step.
// Must never decide what the work is.
import { failure } from "../protocol/errors";

const sliceMs = 8;
/** From the end of a wait to the caller of `breathe`: its own promise, that of `breathe`, and one to spare. */
const turnsOfBreath = 3;

export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw failure("cancelled");
}

/** Lets other work of the thread run whenever a slice is used up. Share one between all parts of one piece of work. */
export class Pace {
  #sliceStart = performance.now();
  /** Concurrent parts go on one after the other, as long as the slice lasts. */
  readonly #waiting: (() => void)[] = [];
  #isResting = false;

  constructor(private readonly signal?: AbortSignal) {}

  async breathe(): Promise<void> {
    throwIfCancelled(this.signal);
    if (!this.#isUsedUp()) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      if (!this.#isResting) void this.#rest();
    });
    throwIfCancelled(this.signal);
  }

  async #rest(): Promise<void> {
    this.#isResting = true;
    while (this.#waiting.length > 0) {
      await new Promise<void>((resolve) => {
        setTimeout(resolve, 0);
      });
      this.#sliceStart = performance.now();
      while (this.#waiting.length > 0 && !this.#isUsedUp()) {
        this.#waiting.shift()?.();
        // Until that part has done what it does before it waits for something: only then is it known what is left of the slice.
        for (let turn = 0; turn < turnsOfBreath; turn++) await Promise.resolve();
      }
    }
    this.#isResting = false;
  }

  #isUsedUp(): boolean {
    return performance.now() - this.#sliceStart >= sliceMs;
  }
}

/** Maps with at most `limit` calls under way; results keep the order of the items. The first failure rejects the whole. */
export async function mapConcurrently<T, R>(
  items: readonly T[],
  limit: number,
  map: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length && !failed; index = next++) {
      try {
        results[index] = await map(items[index] as T, index);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return results;
}

const sortedAtOnce = 512;

/** Merge sort in slices: as `sort` of an array, which holds the thread for long with many items. Stable; `items` stay as they are. */
export async function sortInSlices<T>(
  items: readonly T[],
  compare: (a: T, b: T) => number,
  pace: Pace,
): Promise<readonly T[]> {
  let runs: (readonly T[])[] = [];
  for (let start = 0; start < items.length; start += sortedAtOnce) {
    await pace.breathe();
    runs.push(items.slice(start, start + sortedAtOnce).sort(compare));
  }
  while (runs.length > 1) {
    const merged: (readonly T[])[] = [];
    for (let index = 0; index < runs.length; index += 2) {
      const [left = [], right] = [runs[index], runs[index + 1]];
      merged.push(right === undefined ? left : await mergeInSlices(left, right, compare, pace));
    }
    runs = merged;
  }
  return runs[0] ?? [];
}

/** Of two sorted lists one; of equals those of `left` come first. */
export async function mergeInSlices<T>(
  left: readonly T[],
  right: readonly T[],
  compare: (a: T, b: T) => number,
  pace: Pace,
): Promise<readonly T[]> {
  const merged: T[] = [];
  let [atLeft, atRight] = [0, 0];
  while (atLeft < left.length && atRight < right.length) {
    if (merged.length % sortedAtOnce === 0) await pace.breathe();
    const isLeft = compare(left[atLeft] as T, right[atRight] as T) <= 0;
    merged.push((isLeft ? left[atLeft++] : right[atRight++]) as T);
  }
  for (; atLeft < left.length; atLeft++) merged.push(left[atLeft] as T);
  for (; atRight < right.length; atRight++) merged.push(right[atRight] as T);
  return merged;
}
