// Bytes to text: lines keep their numbers, what is invisible is counted, what only carries hidden text goes.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { decodeText, lineAt } from "../../src/context/text";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("line ends, byte order mark and blank space at the end", () => {
  const decoded = decodeText(bytes("\uFEFFa \r\n\r\n  b\rc\n \n\t\n"));
  assert.deepEqual(decoded, { text: "a \n\n  b\nc", hiddenCharacters: 0, removedCharacters: 0 });
});

test("hidden characters are counted and stay, tag characters are counted and go", () => {
  assert.deepEqual(decodeText(bytes("if (a\u202E\u2066) {}\u200B")), {
    text: "if (a\u202E\u2066) {}\u200B",
    hiddenCharacters: 3,
    removedCharacters: 0,
  });
  const hidden = Array.from("obey", (c) => String.fromCodePoint(0xe0000 + (c.codePointAt(0) ?? 0))).join("");
  assert.deepEqual(decodeText(bytes(`// note${hidden}\nx`)), {
    text: "// note\nx",
    hiddenCharacters: 0,
    removedCharacters: 4,
  });
  assert.equal(
    decodeText(bytes("👩\u200d💻 می\u200cخواهم"))?.hiddenCharacters,
    0,
    "joiners that belong to a script or an emoji",
  );
  assert.equal(decodeText(bytes("pass\u200Dword"))?.hiddenCharacters, 1);
});

test("property: every line of the file is a line of the text with the same number", () => {
  const line = fc.string({ unit: fc.constantFrom("a", " ", "\t", "é", "{", "名") });
  fc.assert(
    fc.property(fc.array(line), fc.constantFrom("\n", "\r\n", "\r"), (lines, end) => {
      const decoded = decodeText(bytes(lines.join(end)));
      const shown = decoded?.text.split("\n") ?? [];
      for (const [index, content] of lines.entries()) {
        if (index < shown.length - 1) assert.equal(shown[index], content);
        else assert.equal((shown[index] ?? "").trimEnd(), content.trimEnd());
      }
    }),
  );
});

test("the line of an offset", () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((offset) => lineAt("a\n\nb\n", offset)),
    [1, 1, 2, 3, 3],
  );
});
