// An answer's quotes and paths against the files that were read: nothing is called found that does not stand there.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { checkCitations, pathSteps } from "../../src/answer/citations";
import type { PackedText } from "../../src/answer/quotes";
import type { Citation } from "../../src/protocol/qa";

const packed: readonly PackedText[] = [
  {
    path: "src/a.ts",
    text: "import x from 'x';\n\nexport function open(path: string) {\n  return read(path);\n}\n\nfunction close() {\n  done();\n}",
  },
  { path: "src/deep/b.ts", text: "class B {\n    run() {\n        return this.value;\n    }\n}\nconst shared = 42;" },
  { path: "lib/b.ts", text: "const shared = 42;\nconst other = 1;" },
  { path: "test/index.ts", text: "const shared = 42;" },
];
const sources = { repository: "demo", packed, known: ["docs/unread.md", "src/index.ts"] };
type Brief = Pick<Citation, "kind" | "status" | "path" | "startLine" | "endLine" | "namedPath" | "candidates">;

function check(answer: string): Brief[] {
  return checkCitations(answer, sources).map(({ kind, status, path, startLine, endLine, namedPath, candidates }) => ({
    kind,
    status,
    path,
    startLine,
    endLine,
    namedPath,
    candidates,
  }));
}
const block = (lines: string, info = "ts"): string => `\`\`\`${info}\n${lines}\n\`\`\``;
const found = (
  kind: Citation["kind"],
  status: Citation["status"],
  path: string,
  [startLine, endLine]: readonly [number, number] = [0, 0],
  namedPath = "",
  candidates = 1,
): Brief => ({ kind, status, path, startLine, endLine, namedPath, candidates });

const openCode = "export function open(path: string) {\n  return read(path);\n}";
const table: readonly { readonly title: string; readonly answer: string; readonly expected: readonly Brief[] }[] = [
  {
    title: "a quote in the named file, and the path that introduces it",
    answer: `\`open\` stands in \`src/a.ts\`:\n\n${block(openCode)}\n`,
    expected: [found("path", "verified", "src/a.ts", [3, 5]), found("block", "verified", "src/a.ts", [3, 5])],
  },
  {
    title: "a quote in another file: the place is corrected, for the path too",
    answer: `In \`lib/b.ts\`:\n${block(openCode)}`,
    expected: [
      found("path", "relocated", "src/a.ts", [3, 5], "lib/b.ts"),
      found("block", "relocated", "src/a.ts", [3, 5], "lib/b.ts"),
    ],
  },
  {
    title: "a named file that does not exist",
    answer: `In \`src/open.ts\`:\n${block(openCode)}`,
    expected: [
      found("path", "relocated", "src/a.ts", [3, 5], "src/open.ts"),
      found("block", "relocated", "src/a.ts", [3, 5], "src/open.ts"),
    ],
  },
  {
    title: "a quote that stands nowhere",
    answer: `In \`src/a.ts\`:\n${block("export function open(path: String) {\n  return read(path);\n}")}`,
    expected: [found("path", "verified", "src/a.ts"), found("block", "not-found", "", [0, 0], "src/a.ts", 0)],
  },
  {
    title: "several places: the named file wins",
    answer: `\`lib/b.ts\`:\n${block("const shared = 42;")}`,
    expected: [
      found("path", "verified", "lib/b.ts", [1, 1], "", 3),
      found("block", "verified", "lib/b.ts", [1, 1], "", 3),
    ],
  },
  {
    title: "several places, none in the named file: the fewest steps away",
    answer: `\`src/a.ts\`:\n${block("const shared = 42;")}`,
    expected: [
      found("path", "relocated", "src/deep/b.ts", [6, 6], "src/a.ts", 3),
      found("block", "relocated", "src/deep/b.ts", [6, 6], "src/a.ts", 3),
    ],
  },
  {
    title: "no file named: the quote is where it is",
    answer: block("    run() {\n        return this.value;"),
    expected: [found("block", "verified", "src/deep/b.ts", [2, 3])],
  },
  {
    title: "a common change of indentation and blank space at line ends",
    answer: block("run() {   \n    return this.value;\n}"),
    expected: [found("block", "verified", "src/deep/b.ts", [2, 4])],
  },
  {
    title: "an uneven change of indentation is another text",
    answer: block("run() {\n      return this.value;\n}"),
    expected: [found("block", "not-found", "", [0, 0], "", 0)],
  },
  {
    title: "blank lines around a quote do not count, those inside do",
    answer: block("\n\nimport x from 'x';\n\nexport function open(path: string) {\n\n"),
    expected: [found("block", "verified", "src/a.ts", [1, 3])],
  },
  {
    title: "a trivial line proves nothing",
    answer: block("}"),
    expected: [found("block", "not-found", "", [0, 0], "", 0)],
  },
  {
    title: "a short line that stands once does",
    answer: block("  done();"),
    expected: [found("block", "verified", "src/a.ts", [8, 8])],
  },
  {
    title: "part of a line is no quote",
    answer: block("export function open"),
    expected: [found("block", "not-found", "", [0, 0], "", 0)],
  },
  { title: "an empty block is no citation", answer: block("  "), expected: [] },
  {
    title: "an answer that was cut off in the middle of a line",
    answer: "`src/a.ts`:\n```ts\nexport function open(path: string) {\n  return re",
    expected: [found("path", "verified", "src/a.ts", [3, 3]), found("block", "verified", "src/a.ts", [3, 3])],
  },
  {
    title: "paths in prose, with and without lines, by their end, of files that were not read",
    answer:
      "See src/a.ts:3-5, `deep/b.ts`, `demo/lib/b.ts`, docs/unread.md and ./src/a.ts. Node.js, e.g. and `x.y` are none.",
    expected: [
      found("path", "verified", "src/a.ts", [3, 5]),
      found("path", "verified", "src/deep/b.ts"),
      found("path", "verified", "lib/b.ts"),
      found("path", "verified", "docs/unread.md"),
      found("path", "verified", "src/a.ts"),
    ],
  },
  {
    title: "paths that do not exist, and lines past the end",
    answer: "`src/nope.ts` and lib/none.py, but `src/a.ts:900`",
    expected: [
      found("path", "not-found", "", [0, 0], "src/nope.ts", 0),
      found("path", "not-found", "", [0, 0], "lib/none.py", 0),
      found("path", "verified", "src/a.ts"),
    ],
  },
  {
    title: "an ambiguous end of a path tells how many files it may be",
    answer: "`index.ts`",
    expected: [found("path", "verified", "test/index.ts", [0, 0], "", 2)],
  },
  {
    title: "a path in the info string names its block",
    answer: block(openCode, "ts src/a.ts:3"),
    expected: [found("block", "verified", "src/a.ts", [3, 5])],
  },
  {
    title: "a block in a list, indented with it, and tildes as a fence",
    answer: "- in `src/a.ts`:\n  ~~~\n  export function open(path: string) {\n    return read(path);\n  }\n  ~~~",
    expected: [found("path", "verified", "src/a.ts", [3, 5]), found("block", "verified", "src/a.ts", [3, 5])],
  },
  {
    title: "one path over two blocks leads to what was found in it",
    answer: `\`src/a.ts\`:\n${block("const other = 1;")}\nand\n${block(openCode)}`,
    expected: [
      found("path", "verified", "src/a.ts", [3, 5]),
      found("block", "relocated", "lib/b.ts", [2, 2], "src/a.ts"),
      found("block", "verified", "src/a.ts", [3, 5]),
    ],
  },
];

for (const { title, answer, expected } of table) {
  test(title, () => {
    assert.deepEqual(check(answer), expected);
  });
}

test("offsets cover the block and the path in the answer", () => {
  const answer = `Ü \`src/a.ts\`:\n\n${block(openCode)}\nend`;
  const [path, quote] = checkCitations(answer, sources);
  assert.equal(answer.slice(path?.offset, (path?.offset ?? 0) + (path?.length ?? 0)), "`src/a.ts`");
  assert.equal(answer.slice(quote?.offset, (quote?.offset ?? 0) + (quote?.length ?? 0)), block(openCode));
  assert.deepEqual([path?.id, quote?.id], [1, 2]);
});

const loops: readonly { readonly title: string; readonly answer: string }[] = [
  { title: "folders without end", answer: `\`${"a/".repeat(200)}b\`` },
  { title: "backticks", answer: `x ${"`".repeat(100_000)}` },
  { title: "plus signs", answer: "+".repeat(100_000) },
];

for (const { title, answer } of loops) {
  test(`an answer that loops is checked in no time: ${title}`, () => {
    const before = process.cpuUsage();
    check(answer);
    const { user, system } = process.cpuUsage(before);
    assert.ok((user + system) / 1_000 < 500, `took ${String((user + system) / 1_000)} ms`);
  });
}

const outlined: PackedText = {
  path: "src/queue.ts",
  text: "/** Waits. */\nexport class Queue {\n  #items = [];\n\n  push(item: string) {\n    this.#items.push(item);\n  }\n\n  pop() {\n    return 1;\n  }\n}",
  mode: "outline",
};
const outlineQuote = "export class Queue {\n…\n  push(item: string) {\n    …\n  pop() {";

test("a quote of an outline stands where its lines stand in the file", () => {
  const place = (packedNow: PackedText, quote: string): (string | number)[] => {
    const [citation] = checkCitations(block(quote), { ...sources, packed: [packedNow] });
    return [citation?.status ?? "", citation?.path ?? "", citation?.startLine ?? -1, citation?.endLine ?? -1];
  };
  assert.deepEqual(place(outlined, outlineQuote), ["verified", "src/queue.ts", 2, 9]);
  assert.deepEqual(place(outlined, "export class Queue {\n  #items = [];"), ["verified", "src/queue.ts", 2, 3]);
  const nowhere = ["not-found", "", 0, 0];
  assert.deepEqual(place(outlined, "  pop() {\n…\nexport class Queue {"), nowhere, "in another order");
  assert.deepEqual(place(outlined, "export class Queue {\n…\n  peek() {"), nowhere, "with a line of its own");
  assert.deepEqual(place({ ...outlined, mode: "full" }, outlineQuote), nowhere, "of a file that was read in full");
});

test("a quote of an earlier copy is told as one, never as found, and not where it stands in a newest text", () => {
  const packed = [{ path: "src/a.ts", text: "const limit = 20;\nconst kept = true;" }];
  const replaced = [{ path: "src/a.ts", text: "const limit = 10;\nconst kept = true;" }];
  const check = (quote: string): (string | number)[][] =>
    checkCitations(`In \`src/a.ts\`:\n\n${block(quote)}`, { ...sources, packed, replaced })
      .filter(({ kind }) => kind === "block")
      .map(({ status, path, startLine, endLine, namedPath }) => [status, path, startLine, endLine, namedPath]);
  assert.deepEqual(check("const limit = 10;"), [["earlier", "src/a.ts", 0, 0, ""]]);
  assert.deepEqual(check("const limit = 20;"), [["verified", "src/a.ts", 1, 1, ""]]);
  assert.deepEqual(check("const kept = true;"), [["verified", "src/a.ts", 2, 2, ""]]);
  assert.deepEqual(check("const limit = 30;"), [["not-found", "", 0, 0, "src/a.ts"]]);
});

test("steps between paths", () => {
  assert.equal(pathSteps("a/b.ts", "a/c.ts"), 2);
  assert.equal(pathSteps("a/b.ts", "a/b.ts"), 0);
  assert.equal(pathSteps("a/b.ts", "c/d/e.ts"), 5);
});

const line = fc
  .tuple(fc.constantFrom("", "  ", "\t"), fc.stringMatching(/^[a-z]{1,3}( = [a-z]{9,12};)?$/))
  .map(([indent, code]) => indent + code);
const text = fc.array(fc.oneof({ weight: 5, arbitrary: line }, fc.constant("")), { minLength: 3, maxLength: 25 });
const texts = fc.array(text, { minLength: 1, maxLength: 5 });

test("property: lines of a packed file are found where they stand; with one character changed they are not", () => {
  fc.assert(
    fc.property(texts, fc.nat(), fc.nat(), fc.nat(), fc.boolean(), (contents, pickFile, pickLine, count, namesIt) => {
      const files = contents.map((lines, index) => ({ path: `d${String(index)}/f.ts`, text: lines.join("\n") }));
      const file = pickFile % files.length;
      const lines = contents[file] ?? [];
      const first = pickLine % lines.length;
      const quote = lines.slice(first, first + 1 + (count % 6));
      fc.pre(quote.join("").match(/\w/g) !== null && (quote.join("").match(/\w/g)?.length ?? 0) >= 8);
      const named = namesIt ? `d${String(file)}/f.ts` : "d99/f.ts";
      const all = { repository: "r", packed: files, known: [] };
      const citation = checkCitations(`\`${named}\`:\n${block(quote.join("\n"))}`, all).find(
        ({ kind }) => kind === "block",
      );
      assert.ok(citation);
      assert.equal(citation.status, namesIt ? "verified" : "relocated");
      const held = contents[files.findIndex(({ path }) => path === citation.path)] ?? [];
      const shown = held.slice(citation.startLine - 1, citation.endLine);
      const trimmed = (all_: readonly string[]): string =>
        all_
          .map((l) => l.trimEnd())
          .join("\n")
          .trim();
      const dedented = (all_: readonly string[]): string => trimmed(all_).replace(/^[ \t]+/gm, "");
      assert.equal(dedented(shown), dedented(quote));
      const changed =
        quote.map((l, index) => (index === 0 && l !== "" ? `${l}Q` : l)).join("\n") +
        (quote[0] === "" ? "\nQQQQQQQQQQ" : "");
      const blockOf = (
        written: string,
        from: typeof all & { readonly replaced?: typeof files },
      ): Citation | undefined =>
        checkCitations(`\`${named}\`:\n${block(written)}`, from).find(({ kind }) => kind === "block");
      assert.equal(blockOf(changed, all)?.status, "not-found");
      // As an earlier copy it changes nothing for what stands in the newest one.
      assert.deepEqual(
        blockOf(quote.join("\n"), { ...all, replaced: [{ path: "old.ts", text: quote.join("\n") }] }),
        citation,
      );
      const earlier = blockOf(changed, { ...all, replaced: [{ path: "old.ts", text: changed }] });
      assert.deepEqual([earlier?.status, earlier?.path, earlier?.startLine], ["earlier", "old.ts", 0]);
    }),
    { numRuns: 500 },
  );
});

test("ten quotes over ten megabytes are checked in less than two seconds", () => {
  const large = Array.from({ length: 400 }, (_, i) => ({
    path: `d/f${String(i)}.ts`,
    text: Array.from({ length: 700 }, (_l, j) => `  const value${String(i)} = compute(${String(j)}, "padding");`).join(
      "\n",
    ),
  }));
  const answer = Array.from({ length: 10 }, (_, i) =>
    block(
      `  const value${String(399 - i)} = compute(698, "padding");\n  const value${String(399 - i)} = compute(699, "padding");`,
    ),
  ).join("\n");
  const started = performance.now();
  const citations = checkCitations(answer, { repository: "r", packed: large, known: [] });
  assert.deepEqual(
    citations.map(({ startLine }) => startLine),
    Array<number>(10).fill(699),
  );
  assert.ok(performance.now() - started < 2_000);
});
