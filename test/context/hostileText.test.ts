// Text that was made to make a pattern slow: the thread that reads it is also the editor's.
import assert from "node:assert/strict";
import { test } from "node:test";
import { definitionsIn } from "../../src/context/definitions";
import { namesInQuestion } from "../../src/context/identifiers";
import { IgnoreRules } from "../../src/context/ignoreRules";

/** Linear work takes a few milliseconds of the processor here; what these tests guard against took seconds, or for ever. */
const limitMs = 500;

const lines = (line: string): string => `${line}\n`.repeat(650);

const work: readonly { readonly title: string; readonly run: () => unknown }[] = [
  {
    title: "an assignment followed by spaces",
    run: () => definitionsIn("a.js", lines(`  a.b = ${" ".repeat(380)}!`)),
  },
  {
    title: "a constant followed by spaces",
    run: () => definitionsIn("a.ts", lines(`const a = async ${" ".repeat(380)}!`)),
  },
  {
    title: "an ignore file with a line of spaces",
    run: () => IgnoreRules.none.with("", [`${" ".repeat(500_000)}x`]),
  },
  {
    title: "an ignore file with a line of backslashes",
    run: () => IgnoreRules.none.with("", [`${"\\".repeat(100_000)}x`]),
  },
  { title: "a question of backticks", run: () => namesInQuestion("`".repeat(100_000)) },
  { title: "a question of tildes", run: () => namesInQuestion("~".repeat(100_000)) },
];

for (const { title, run } of work) {
  test(title, () => {
    const before = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(before);
    assert.ok((user + system) / 1_000 < limitMs, `took ${String((user + system) / 1_000)} ms`);
  });
}
