// A line of .ringsideignore means the one path that it was made for, by the rules of the library that reads it.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import ignore from "ignore";
import { ignoreLine, withLines } from "../../src/extension/ignoreFile";

const name = fc
  .array(fc.constantFrom("a", "b", "*", "?", "[", "]", "!", "#", " ", "\\", ".", "-", "ä"), {
    minLength: 1,
    maxLength: 6,
  })
  .map((characters) => characters.join(""))
  .filter((text) => !/^\.+$/.test(text));
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("/"));

test("property: a file's line ignores that file, and no other", () => {
  fc.assert(
    fc.property(path, path, (wanted, other) => {
      const line = ignoreLine(wanted);
      assert.ok(line !== null);
      const rules = ignore().add(line);
      assert.ok(rules.ignores(wanted), line);
      if (other !== wanted && !other.startsWith(`${wanted}/`)) assert.ok(!rules.ignores(other), `${line} | ${other}`);
    }),
    { numRuns: 2_000 },
  );
});

test("property: a folder's line ignores what is in it", () => {
  fc.assert(
    fc.property(path, name, (folder, inside) => {
      const rules = ignore().add(ignoreLine(`${folder}/`) ?? "");
      assert.ok(rules.ignores(`${folder}/${inside}`));
      assert.ok(!rules.ignores(folder), "a file of that name is another thing");
    }),
    { numRuns: 2_000 },
  );
});

test("a name with a line break cannot be said in one line", () => {
  assert.equal(ignoreLine("a\nb"), null);
  assert.equal(ignoreLine(""), null);
});

test("lines are added once, on lines of their own, and nothing else changes", () => {
  assert.equal(withLines("", ["/a"]), "/a\n");
  assert.equal(withLines("# mine", ["/a", "/b", "/a"]), "# mine\n/a\n/b\n");
  assert.equal(withLines("/a\r\n", ["/a"]), "/a\r\n");
});
