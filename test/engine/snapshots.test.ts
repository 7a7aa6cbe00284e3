// Which states are kept: at most two bases, the least recently used one goes first, and memory has a limit.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Snapshots } from "../../src/engine/snapshots";
import type { NativeSnapshot } from "../../src/engine/addonTypes";

class Kept implements NativeSnapshot {
  closed = false;
  readonly #tokens: number;
  readonly #held: number;
  constructor(tokens: number, held: number) {
    this.#tokens = tokens;
    this.#held = held;
  }
  position(): number {
    return this.#tokens;
  }
  bytes(): number {
    return this.#held;
  }
  close(): void {
    this.closed = true;
  }
}

function base(first: number, length: number): Int32Array {
  return Int32Array.from({ length }, (_, index) => first + index);
}

test("two bases are kept and the one used longest ago is closed for a third", () => {
  const snapshots = new Snapshots(1_000);
  const kept = [new Kept(64, 10), new Kept(64, 10), new Kept(64, 10)] as const;
  snapshots.keep(base(0, 70), kept[0]);
  snapshots.keep(base(100, 70), kept[1]);
  assert.equal(snapshots.has(base(0, 70)), true);
  snapshots.keep(base(200, 70), kept[2]);
  assert.deepEqual(
    kept.map(({ closed }) => closed),
    [false, true, false],
  );
  assert.equal(snapshots.has(base(100, 70)), false);
  assert.equal(snapshots.has(base(0, 71)), false, "a longer base is another base");
  assert.equal(snapshots.all().length, 2);
  snapshots.clear();
  assert.ok(kept.every(({ closed }) => closed));
  assert.equal(snapshots.all().length, 0);
});

test("over the memory limit only the newest stays, however large it is", () => {
  const snapshots = new Snapshots(100);
  const [small, large] = [new Kept(64, 60), new Kept(128, 5_000)];
  snapshots.keep(base(0, 64), small);
  snapshots.keep(base(9, 128), large);
  assert.equal(small.closed, true);
  assert.equal(large.closed, false);
});

test("what can be reused is the longest kept state that the prompt begins with", () => {
  const snapshots = new Snapshots(1_000);
  snapshots.keep(base(0, 100), new Kept(64, 1));
  snapshots.keep(base(0, 200), new Kept(192, 1));
  assert.equal(snapshots.reusable(base(0, 300)), 192);
  assert.equal(snapshots.reusable(base(0, 150)), 64);
  assert.equal(snapshots.reusable(base(0, 63)), 0);
  assert.equal(snapshots.reusable(base(5, 300)), 0);
});
