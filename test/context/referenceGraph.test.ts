// The ranks by references: what was ranked before changes no number, and a name counts for what it says.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { FileNames } from "../../src/context/fileFacts";
import { Pace } from "../../src/context/pace";
import { ReferenceRanks } from "../../src/context/referenceGraph";

function namesOf(defined: readonly number[], used: readonly (readonly [name: number, count: number])[]): FileNames {
  return {
    defined: Uint32Array.from(defined),
    used: Uint32Array.from(used, ([name]) => name),
    counts: Uint16Array.from(used, ([, count]) => count),
    outlineCharacters: 0,
  };
}

const nameCount = 40;
const fileNames = fc
  .tuple(
    fc.uniqueArray(fc.nat(nameCount - 1), { maxLength: 6 }),
    fc.uniqueArray(fc.tuple(fc.nat(nameCount - 1), fc.integer({ min: 1, max: 9 })), {
      maxLength: 12,
      selector: ([name]) => name,
    }),
  )
  .map(([defined, used]) => namesOf(defined, used));

type Edit = { readonly at: number; readonly names: FileNames; readonly how: "change" | "add" | "remove" };
const edits = fc.array(
  fc.record<Edit>({
    at: fc.nat(40),
    names: fileNames,
    how: fc.constantFrom("change", "change", "change", "add", "remove"),
  }),
  { minLength: 1, maxLength: 8 },
);

test("property: after any edits the ranks are those of a repository that is ranked for the first time", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fileNames, { minLength: 1, maxLength: 25 }), edits, async (files, changes) => {
      const warm = new ReferenceRanks();
      let now = [...files];
      const weights = (): Float64Array => Float64Array.from(now, (_, index) => 1 / (1 + (index % 3)));
      await warm.rank(now, weights(), nameCount, new Pace());
      for (const { at, names, how } of changes) {
        const index = at % Math.max(1, now.length);
        now = how === "remove" ? now.toSpliced(index, 1) : now.toSpliced(index, how === "add" ? 0 : 1, names);
        const ranks = await warm.rank(now, weights(), nameCount, new Pace());
        assert.deepEqual(ranks, await new ReferenceRanks().rank(now, weights(), nameCount, new Pace()));
      }
    }),
    { numRuns: 500 },
  );
});

test("names may be added from one ranking to the next", async () => {
  const warm = new ReferenceRanks();
  const [user, definer] = [namesOf([], [[0, 1]]), namesOf([0], [])];
  const weights = Float64Array.of(1, 1);
  await warm.rank([user, definer], weights, 1, new Pace());
  const now = [user, namesOf([0, 1], [[2, 3]])];
  const expected = await new ReferenceRanks().rank(now, weights, 3, new Pace());
  assert.deepEqual(await warm.rank(now, weights, 3, new Pace()), expected);
  assert.ok((expected[1] ?? 0) > (expected[0] ?? 0));
});

test("a ranking that was stopped leaves the next one right", async () => {
  const files = Array.from({ length: 200 }, (_, i) => namesOf([i % nameCount], [[(i + 1) % nameCount, 1]]));
  const weights = new Float64Array(files.length).fill(1);
  const warm = new ReferenceRanks();
  await warm.rank(files, weights, nameCount, new Pace());
  const changed = files.with(7, namesOf([3], [[9, 2]]));
  await assert.rejects(warm.rank(changed, weights, nameCount, new Pace(AbortSignal.abort())));
  const expected = await new ReferenceRanks().rank(changed, weights, nameCount, new Pace());
  assert.deepEqual(await warm.rank(changed, weights, nameCount, new Pace()), expected);
});
