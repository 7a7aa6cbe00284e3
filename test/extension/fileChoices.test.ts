// What the user chose of files and folders: read back from anything, changed without surprise, most specific path first.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { choiceFor, mostChoices, parseChoices, placesOf, withChoice } from "../../src/extension/fileChoices";
import type { FileChoice, FileChoices } from "../../src/protocol/qa";

const name = fc.constantFrom("a", "b", "src", "lib", "x.ts", "__proto__", "constructor", "ä", "with space");
const path = fc
  .tuple(fc.array(name, { minLength: 1, maxLength: 4 }), fc.boolean())
  .map(([parts, isFolder]) => parts.join("/") + (isFolder ? "/" : ""));
const choice = fc.constantFrom<FileChoice>("full", "outline", "out");
const stored = fc.constantFrom<FileChoices[string]>("full", "outline", "out", "automatic");
const choices = fc.array(fc.tuple(path, stored)).map((entries): FileChoices => Object.fromEntries(entries));

test("property: what was stored comes back, and only paths with choices do", () => {
  fc.assert(
    fc.property(choices, (made) => {
      const read = parseChoices(JSON.parse(JSON.stringify(made)));
      assert.deepEqual(
        Object.entries(read),
        Object.entries(made).sort(([a], [b]) => (a < b ? -1 : 1)),
      );
    }),
  );
});

test("property: anything can have been stored, nothing throws, and what comes back is choices", () => {
  fc.assert(
    fc.property(fc.anything(), (anything) => {
      for (const [key, value] of Object.entries(parseChoices(anything))) {
        assert.ok(["full", "outline", "out", "automatic"].includes(value));
        assert.ok(!key.startsWith("/") && !key.split("/").includes(".."));
      }
    }),
  );
  const hostile = { "../x": "full", "/etc/passwd": "full", "a//b": "out", "a/./b": "out", "": "out", "/": "out" };
  assert.deepEqual(parseChoices({ ...hostile, "a\0b": "full", c: "all", ["y".repeat(5_000)]: "full" }), {});
});

test("there is an end to what is read back and to what can be chosen", () => {
  const many = Object.fromEntries(Array.from({ length: mostChoices + 9 }, (_, index) => [String(index), "full"]));
  const read = parseChoices(many);
  assert.equal(Object.keys(read).length, mostChoices);
  assert.throws(() => withChoice(read, ["one/more"], "out"), RangeError);
  assert.deepEqual(choiceFor(withChoice(read, ["1"], "out"), "1"), { choice: "out", of: "1" });
});

/** The slow truth: the longest chosen folder that the path begins with, or the path itself. */
function slowChoiceFor(made: FileChoices, wanted: string): FileChoice | undefined {
  const covering = Object.keys(made).filter((key) => key === wanted || (key.endsWith("/") && wanted.startsWith(key)));
  const longest = covering.sort((a, b) => b.length - a.length)[0];
  const nearest = longest === undefined ? undefined : made[longest];
  return nearest === "automatic" ? undefined : nearest;
}

test("property: the most specific choice holds", () => {
  fc.assert(
    fc.property(choices, path, (made, wanted) => {
      assert.equal(choiceFor(made, wanted)?.choice, slowChoiceFor(made, wanted));
    }),
    { numRuns: 500 },
  );
});

test("property: a choice holds for all of what was chosen, and for nothing else", () => {
  fc.assert(
    fc.property(
      choices,
      fc.array(path, { minLength: 1, maxLength: 4 }),
      choice,
      path,
      (made, chosen, wanted, other) => {
        const after = withChoice(made, chosen, wanted);
        for (const item of chosen) assert.equal(choiceFor(after, item)?.choice, wanted);
        const isInside = chosen.some((item) => other === item || (item.endsWith("/") && other.startsWith(item)));
        assert.equal(choiceFor(after, other)?.choice, isInside ? wanted : choiceFor(made, other)?.choice);
      },
    ),
    { numRuns: 500 },
  );
});

test("property: taking a choice back leaves nothing of it and nothing below it, whatever holds for a folder around it", () => {
  fc.assert(
    fc.property(choices, path, path, (made, item, other) => {
      const after = withChoice(made, [item], null);
      assert.equal(choiceFor(after, item), null);
      const isInside = other === item || (item.endsWith("/") && other.startsWith(item));
      assert.equal(choiceFor(after, other)?.choice, isInside ? undefined : choiceFor(made, other)?.choice);
      if (item.endsWith("/")) assert.ok(Object.keys(after).every((key) => key === item || !key.startsWith(item)));
      // Nothing is kept but what has to be said against a folder.
      for (const [key, value] of Object.entries(after))
        assert.ok(key === item ? value === "automatic" : made[key] === value);
      const around = Object.fromEntries(Object.entries(after).filter(([key]) => key !== item));
      assert.equal(Object.hasOwn(after, item), choiceFor(around, item) !== null);
    }),
    { numRuns: 500 },
  );
});

test("property: a place is a chosen path or a folder that holds one", () => {
  fc.assert(
    fc.property(choices, path, (made, item) => {
      const holds = Object.keys(made).some((key) => key === item || (item.endsWith("/") && key.startsWith(item)));
      assert.equal(placesOf(made).has(item), holds);
    }),
    { numRuns: 500 },
  );
});
