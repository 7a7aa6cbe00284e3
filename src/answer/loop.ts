// Owns: noticing that a model repeats itself without end, as greedy decoding can. Must never mistake long regular code for it:
// only a long stretch that repeats one short pattern token by token counts.

const watchedTokens = 384;
const longestPattern = 48;
/** Looking after every token would cost more than it tells. */
const lookEvery = 32;

export class LoopDetector {
  readonly #recent: number[] = [];
  #sinceLook = 0;

  /** Whether what was generated so far ends in such a loop. */
  push(ids: readonly number[]): boolean {
    this.#recent.push(...ids);
    if (this.#recent.length > 2 * watchedTokens) this.#recent.splice(0, this.#recent.length - watchedTokens);
    this.#sinceLook += ids.length;
    if (this.#sinceLook < lookEvery || this.#recent.length < watchedTokens) return false;
    this.#sinceLook = 0;
    const tail = this.#recent.slice(-watchedTokens);
    for (let period = 1; period <= longestPattern; period++) {
      if (tail.every((id, index) => index < period || id === tail[index - period])) return true;
    }
    return false;
  }
}
