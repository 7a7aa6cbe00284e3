// Work in slices: other work runs in between, and what comes out is what a plain sort or map gives.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { mergeInSlices, Pace, sortInSlices } from "../../src/context/pace";

interface Item {
  readonly key: number;
  readonly at: number;
}
const byKey = (a: Item, b: Item): number => a.key - b.key;
const items = fc
  .array(fc.nat(9), { maxLength: 3_000, size: "max" })
  .map((keys) => keys.map((key, at): Item => ({ key, at })));

test("property: sorting in slices is sorting, and stable", async () => {
  await fc.assert(
    fc.asyncProperty(items, async (list) => {
      const before = [...list];
      assert.deepEqual(await sortInSlices(list, byKey, new Pace()), [...list].sort(byKey));
      assert.deepEqual(list, before);
    }),
    { numRuns: 50 },
  );
});

test("property: merging two sorted lists is sorting both, those of the first before their equals", async () => {
  await fc.assert(
    fc.asyncProperty(items, items, async (left, right) => {
      const [a, b] = [left.sort(byKey), right.sort(byKey)];
      assert.deepEqual(await mergeInSlices(a, b, byKey, new Pace()), [...a, ...b].sort(byKey));
    }),
    { numRuns: 50 },
  );
});

test("of many parts that waited for one pause, each runs in a slice that is not used up", async (t) => {
  let nowMs = 0;
  t.mock.method(performance, "now", () => nowMs);
  const pace = new Pace();
  let otherWork = 0;
  const ticking = setInterval(() => otherWork++, 0);
  const part = async (): Promise<void> => {
    await pace.breathe();
    nowMs += 10; // More than a slice.
  };
  nowMs += 10;
  await Promise.all(Array.from({ length: 20 }, part));
  clearInterval(ticking);
  assert.ok(otherWork >= 15, `other work ran ${String(otherWork)} times`);
});
