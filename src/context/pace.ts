// Owns: how this room does long work without holding the thread: short slices, bounded concurrency, a stop at every step.
// Must never decide what the work is.
import { failure } from "../protocol/errors";

const sliceMs = 8;

export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw failure("cancelled");
}

/** Lets other work of the thread run whenever a slice is used up. Share one between all parts of one piece of work. */
export class Pace {
  #sliceStart = performance.now();
  #pause: Promise<void> | undefined;

  constructor(private readonly signal?: AbortSignal) {}

  async breathe(): Promise<void> {
    throwIfCancelled(this.signal);
    if (performance.now() - this.#sliceStart < sliceMs) return;
    // One pause for all concurrent parts: with a timer each, every one of them would run a slice before other work does.
    this.#pause ??= this.#rest();
    await this.#pause;
    throwIfCancelled(this.signal);
  }

  async #rest(): Promise<void> {
    await new Promise<void>((resolve) => {
      setTimeout(resolve, 0);
    });
    this.#sliceStart = performance.now();
    this.#pause = undefined;
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
