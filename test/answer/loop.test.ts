import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LoopDetector } from "../../src/answer/loop";

function noticedAfter(ids: readonly number[], batch: number): number | null {
  const detector = new LoopDetector();
  for (let start = 0; start < ids.length; start += batch) {
    if (detector.push(ids.slice(start, start + batch))) return Math.min(ids.length, start + batch);
  }
  return null;
}

test("a pattern that goes on is noticed in less than 500 tokens, whatever stood before and however it came in", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(1_000), { minLength: 1, maxLength: 48 }),
      fc.array(fc.nat(1_000), { maxLength: 700 }),
      fc.integer({ min: 1, max: 40 }),
      (pattern, before, batch) => {
        const loop = Array.from({ length: 700 }, (_, index) => pattern[index % pattern.length] ?? 0);
        const at = noticedAfter([...before, ...loop], batch);
        assert.ok(at !== null && at - before.length <= 500, `${String(at)} after ${String(before.length)}`);
      },
    ),
  );
});

test("regular code is not a loop: lines that differ in one place, however many", () => {
  const lines = Array.from({ length: 400 }, (_, line) => [7, 8, 9, 1_000 + line, 10, 11]).flat();
  assert.equal(noticedAfter(lines, 5), null);
});

test("a pattern that ends before it fills the watched stretch is not a loop", () => {
  const zeros = Array.from({ length: 380 }, () => 0);
  assert.equal(noticedAfter([...Array(300).keys(), ...zeros, ...Array(300).keys()], 1), null);
});
