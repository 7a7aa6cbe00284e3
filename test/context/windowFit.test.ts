// By how much a repository is past the window: nothing is told of one that fits, and every file that was cut is counted.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { windowFit } from "../../src/context/windowFit";
import type { PlannedFile } from "../../src/protocol/qa";

const file = (path: string, bytes: number, tokens: number): { path: string; bytes: number; tokens: number } => ({
  path,
  bytes,
  tokens,
});
const known = ({ tokens }: { readonly tokens: number }): number => tokens;
const planned = (path: string, mode: PlannedFile["mode"], reason: PlannedFile["reason"]): PlannedFile => ({
  path,
  tokens: 1,
  mode,
  reason,
});

test("uncounted files are estimated at the rate of those that were counted", () => {
  const files = [
    file("read", 400, 100),
    file("outlined", 800, 200),
    file("left", 4_000, 0),
    file("generated", 9_999, 0),
  ];
  const plan = [
    planned("read", "full", "base"),
    planned("outlined", "outline", "base"),
    planned("left", "dropped", "over-budget"),
    planned("generated", "dropped", "generated"),
  ];
  assert.deepEqual(windowFit(plan, files, known, 150), { outlinedFiles: 1, leftOutFiles: 1, overTokens: 1_200 });
});

test("what the user chose is not the window's doing", () => {
  const plan = [planned("a", "outline", "chosen"), planned("b", "dropped", "chosen-out"), planned("c", "full", "base")];
  const files = [file("a", 10, 5), file("b", 10, 5), file("c", 10, 5)];
  assert.deepEqual(windowFit(plan, files, known, 1), { outlinedFiles: 0, leftOutFiles: 0, overTokens: 0 });
});

test("property: the counts are those of the plan, and the excess is never negative nor told of what fits", () => {
  const kinds: readonly Pick<PlannedFile, "mode" | "reason">[] = [
    { mode: "full", reason: "base" },
    { mode: "full", reason: "supplement" },
    { mode: "outline", reason: "base" },
    { mode: "outline", reason: "chosen" },
    { mode: "dropped", reason: "over-budget" },
    { mode: "dropped", reason: "out-of-scope" },
    { mode: "dropped", reason: "secret" },
  ];
  const one = fc.record({ kind: fc.constantFrom(...kinds), bytes: fc.nat(1e7), tokens: fc.nat(1e6) });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 50 }), fc.nat(1e6), (items, budget) => {
      const files = items.map(({ bytes, tokens }, index) => file(String(index), bytes, tokens));
      const plan = items.map(({ kind }, index) => planned(String(index), kind.mode, kind.reason));
      const fit = windowFit(plan, files, known, budget);
      assert.equal(
        fit.outlinedFiles,
        items.filter(({ kind }) => kind.mode === "outline" && kind.reason === "base").length,
      );
      assert.equal(fit.leftOutFiles, items.filter(({ kind }) => kind.reason === "over-budget").length);
      assert.ok(Number.isSafeInteger(fit.overTokens) && fit.overTokens >= 0);
      if (fit.outlinedFiles + fit.leftOutFiles === 0) assert.equal(fit.overTokens, 0);
    }),
    { numRuns: 500 },
  );
});
