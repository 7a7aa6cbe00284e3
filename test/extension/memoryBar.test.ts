// The bar of a model's memory: as long as it was asked for, and no part of it unseen.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { memoryBar, percentOf } from "../../src/extension/memoryBar";

test("parts have their share of the characters", () => {
  assert.equal(memoryBar([50, 25, 25], 8), "████▓▓▒▒");
  assert.equal(memoryBar([1_000_000, 1, 0], 10), "█████████▓");
  assert.equal(memoryBar([0, 0], 10), "");
  assert.equal(percentOf(1, 3), 33);
  assert.equal(percentOf(1, 0), 0);
});

test("property: the length is right and every part that is there is seen", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(1e9), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 8, max: 40 }),
      (parts, length) => {
        const bar = memoryBar(parts, length);
        if (parts.every((part) => part === 0)) assert.equal(bar, "");
        else {
          assert.equal(bar.length, length);
          for (const [index, part] of parts.entries()) assert.equal(bar.includes("█▓▒░"[index] ?? ""), part > 0);
        }
      },
    ),
    { numRuns: 500 },
  );
});
