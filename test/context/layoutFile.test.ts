// A layout as text: what is read back is what was written, and nothing else is a layout.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { BaseLayout, Delta } from "../../src/context/baseLayout";
import { encodeLayout, parseLayout } from "../../src/context/layoutFile";

const file = fc.record({
  path: fc.string({ unit: "binary", maxLength: 20 }),
  text: fc.string({ unit: "binary", maxLength: 60 }),
  mode: fc.constantFrom("full" as const, "outline" as const),
  tokens: fc.nat(),
});
const path = fc.string({ maxLength: 20 });
const delta: fc.Arbitrary<Delta> = fc.oneof(
  fc.record({ change: fc.constant("text" as const), file, replaces: fc.boolean(), tokens: fc.nat() }),
  fc.record({ change: fc.constant("gone" as const), path, tokens: fc.nat() }),
  fc.record({ change: fc.constant("moved" as const), path, to: path, tokens: fc.nat() }),
);
const layout: fc.Arbitrary<BaseLayout> = fc.record({
  complete: fc.boolean(),
  files: fc.uniqueArray(file, { selector: (each) => each.path, maxLength: 8 }),
  deltas: fc.array(delta, { maxLength: 6 }),
});

/** What a layout says without what it costs. */
function untold({ complete, files, deltas }: BaseLayout): object {
  const plain = ({ tokens: _, ...rest }: BaseLayout["files"][number]): object => rest;
  const changes = deltas.map(({ tokens: _, ...change }) =>
    change.change === "text" ? { ...change, file: plain(change.file) } : change,
  );
  return { complete, files: files.map(plain), changes };
}

test("property: what was written is read back, without what it cost", () => {
  fc.assert(
    fc.property(layout, (each) => {
      assert.deepEqual(parseLayout(encodeLayout(each)), untold(each));
    }),
    { numRuns: 500 },
  );
});

test("property: foreign, cut and changed text is no layout or a well-formed one, and never throws", () => {
  const changed = fc
    .tuple(layout, fc.nat(), fc.string({ maxLength: 3 }), fc.nat({ max: 6 }))
    .map(([each, at, put, cut]) => {
      const content = encodeLayout(each);
      const place = at % (content.length + 1);
      return content.slice(0, place) + put + content.slice(place + cut);
    });
  const foreign = fc.oneof(fc.string(), fc.json(), changed);
  fc.assert(
    fc.property(foreign, (content) => {
      const parsed = parseLayout(content);
      if (parsed === undefined) return;
      assert.deepEqual(parseLayout(JSON.stringify({ format: 1, ...parsed })), parsed);
      assert.equal(new Set(parsed.files.map((each) => each.path)).size, parsed.files.length);
    }),
    { numRuns: 2_000 },
  );
});

test("another format, a path twice, a wrong mode and a long path are refused", () => {
  const good = { format: 1, complete: true, files: [{ path: "a", text: "b", mode: "full" }], changes: [] };
  assert.ok(parseLayout(JSON.stringify(good)) !== undefined);
  for (const wrong of [
    { ...good, format: 2 },
    { ...good, complete: 1 },
    { ...good, files: [...good.files, ...good.files] },
    { ...good, files: [{ path: "a", text: "b", mode: "dropped" }] },
    { ...good, files: [{ path: "a".repeat(5_000), text: "b", mode: "full" }] },
    { ...good, changes: [{ change: "other", path: "a" }] },
    { ...good, changes: [{ change: "moved", path: "a" }] },
    null,
  ]) {
    assert.equal(parseLayout(JSON.stringify(wrong)), undefined);
  }
  assert.equal(parseLayout("[".repeat(200_000)), undefined);
});
