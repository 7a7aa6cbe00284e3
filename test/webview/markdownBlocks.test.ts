// The cut of a growing answer into blocks: a block once called settled is never cut otherwise, whatever is appended.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { blocksFrom, createParser, lineStarts, settledBlocks } from "../../webview/shared/markdownBlocks";
import type { Block } from "../../webview/shared/markdownBlocks";

const parser = createParser();

const pieces = [
  "a",
  "word",
  " ",
  "  ",
  "    ",
  "\n",
  "\n\n",
  "\r\n",
  "- ",
  "* ",
  "1. ",
  "2) ",
  "> ",
  "# ",
  "```",
  "```ts\n",
  "~~~",
  "`x`",
].concat([
  "---",
  "***",
  "===",
  "| a | b |\n",
  "|---|---|\n",
  "[l](http://h.test)",
  "[r]: http://h.test\n",
  "![i](x)",
  "<b>",
  "\t",
  "**",
]);
const markdown = fc.array(fc.constantFrom(...pieces), { maxLength: 40 }).map((parts) => parts.join(""));

/** As the page does it: settled blocks stay, the rest is cut again. */
function grow(texts: readonly string[]): Block[] {
  const settled: Block[] = [];
  let end = 0;
  for (const text of texts) {
    const more = settledBlocks(parser, text, end);
    settled.push(...more);
    end = more[more.length - 1]?.end ?? end;
  }
  return [...settled, ...blocksFrom(parser, texts[texts.length - 1] ?? "", end)];
}

test("growing gives the same blocks as the whole text", () => {
  fc.assert(
    fc.property(markdown, fc.array(fc.nat(200), { maxLength: 12 }), (text, cuts) => {
      const ends = [...new Set([...cuts.filter((cut) => cut < text.length), text.length])].sort((a, b) => a - b);
      assert.deepEqual(grow(ends.map((end) => text.slice(0, end))), grow([text]));
    }),
    { numRuns: 3_000 },
  );
});

test("character by character as well", () => {
  fc.assert(
    fc.property(markdown, (text) => {
      const prefixes = Array.from({ length: text.length + 1 }, (_, end) => text.slice(0, end));
      assert.deepEqual(grow(prefixes), grow([text]));
    }),
    { numRuns: 500 },
  );
});

test("blocks lie side by side and reach the end", () => {
  fc.assert(
    fc.property(markdown, (text) => {
      const blocks = blocksFrom(parser, text, 0);
      for (const [index, block] of blocks.entries()) {
        assert.equal(block.end, blocks[index + 1]?.start ?? text.length);
        assert.ok(block.start < block.end);
      }
    }),
  );
});

test("lines are counted as the parser counts them", () => {
  assert.deepEqual(lineStarts("a\nb\r\nc\rd"), [0, 2, 5, 7, 8]);
  assert.deepEqual(lineStarts("a\n"), [0, 2]);
  assert.deepEqual(lineStarts(""), [0]);
});
