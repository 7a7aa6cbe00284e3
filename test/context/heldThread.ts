// How long work holds the thread at a time, by the processor's time: how busy the machine is with other work must not decide.
import assert from "node:assert/strict";

/** From here on; the function ends the watch and fails when one block was longer than slices can be. */
export function watchThread(): () => void {
  const spentMs = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1_000;
  };
  const startMs = spentMs();
  let [lastMs, longestMs, isTicking] = [startMs, 0, true];
  const tick = (): void => {
    longestMs = Math.max(longestMs, spentMs() - lastMs);
    lastMs = spentMs();
    if (isTicking) setImmediate(tick);
  };
  tick();
  return () => {
    isTicking = false;
    // Collecting garbage gets some slack; on a slow machine, where all takes longer, in proportion.
    const limitMs = Math.max(200, (spentMs() - startMs) / 5);
    assert.ok(longestMs < limitMs, `the thread was held for ${longestMs.toFixed(0)} of ${limitMs.toFixed(0)} ms`);
  };
}
