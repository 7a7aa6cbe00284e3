// The split of reasoning and answer is the same however the text is cut.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { TraceSplitter } from "../../src/answer/trace";

function split(pieces: readonly string[], opened = false): { reasoning: string; answer: string } {
  const result = { reasoning: "", answer: "" };
  const splitter = new TraceSplitter(
    { reasoning: (text) => (result.reasoning += text), answer: (text) => (result.answer += text) },
    opened,
  );
  for (const piece of pieces) splitter.push(piece);
  splitter.finish();
  return result;
}

const table: readonly {
  readonly text: string;
  readonly opened?: boolean;
  readonly reasoning: string;
  readonly answer: string;
}[] = [
  { text: "<think>\nFirst.\nThen.\n</think>\n\nIn `a.ts`.", reasoning: "First.\nThen.", answer: "In `a.ts`." },
  { text: "First.\n</think>\n\nDone", opened: true, reasoning: "First.", answer: "Done" },
  { text: "No thought.", reasoning: "", answer: "No thought." },
  { text: "<think></think>Done", reasoning: "", answer: "Done" },
  { text: "</think>\n\nDone", reasoning: "", answer: "Done" },
  { text: "\n <think>\nx\n\n\ny</think>z", reasoning: "x\n\n\ny", answer: "z" },
  { text: "<think>never closed </thin", reasoning: "never closed </thin", answer: "" },
  {
    text: "<think>a</think>Quote: `<think>` and </think>.\n",
    reasoning: "a",
    answer: "Quote: `<think>` and </think>.",
  },
  { text: "I look.\n</think>\n\nHere.\n</think>", reasoning: "", answer: "I look.\n\nHere.\n</think>" },
  { text: "It says </think> there.\n</thin", reasoning: "", answer: "It says </think> there.\n</thin" },
  { text: "<thinker> is a name", reasoning: "", answer: "<thinker> is a name" },
  { text: "<think>1 < 2 </ b\n<</think>x", reasoning: "1 < 2 </ b\n<", answer: "x" },
  { text: "  indented", reasoning: "", answer: "  indented" },
  { text: "", reasoning: "", answer: "" },
];

for (const { text, opened, reasoning, answer } of table) {
  test(`trace: ${JSON.stringify(text)}`, () => {
    assert.deepEqual(split([text], opened), { reasoning, answer });
    assert.deepEqual(split(Array.from(text), opened), { reasoning, answer });
  });
}

const part = fc.constantFrom(
  "<think>",
  "</think>",
  "<",
  "</",
  "think>",
  "\n",
  "\n\n",
  " ",
  "word",
  "é",
  "```",
  "</thin",
);
const text = fc.array(part, { maxLength: 14 }).map((parts) => parts.join(""));

test("property: any cut gives the same split, and no visible character is lost", () => {
  fc.assert(
    fc.property(text, fc.boolean(), fc.array(fc.nat(40), { maxLength: 12 }), (whole, opened, cuts) => {
      const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)), whole.length].sort((a, b) => a - b);
      const pieces = places.slice(1).map((end, index) => whole.slice(places[index], end));
      const expected = split([whole], opened);
      assert.deepEqual(split(pieces, opened), expected);
      const visible = (s: string): string => s.replace(/[</think>\s]/g, ""); // What no tag can be made of.
      assert.equal(visible(expected.reasoning + expected.answer), visible(whole));
    }),
    { numRuns: 2_000 },
  );
});

test("property: a well-formed text is split exactly", () => {
  const plain = fc
    .array(fc.constantFrom("a", "<", "</", "\n", " ", "<b>", "</think"), { maxLength: 10 })
    .map((p) => `x${p.join("")}y`);
  fc.assert(
    fc.property(plain, plain, (reasoning, answer) => {
      assert.deepEqual(split([`<think>\n${reasoning}\n</think>\n\n${answer}`]), { reasoning, answer });
    }),
  );
});
