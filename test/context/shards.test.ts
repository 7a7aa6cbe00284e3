// The cut of a repository into shards: every line once, within the limit, and an edit moves no other file's shard.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { ShardCut } from "../../src/context/shards";
import type { FileChoices } from "../../src/protocol/qa";
import { failureKind } from "../engine/engineUnderTest";
import { contextOf, MemoryRepository } from "./folders";

/** A token for each word and each line end, as far as the cut can tell. */
const count = (texts: readonly string[]): Promise<readonly number[]> =>
  Promise.resolve(texts.map((text) => text.match(/\n|[^\s]+/g)?.length ?? 0));

async function cut(
  repository: MemoryRepository,
  shardTokens: number,
  scope: readonly string[] = [],
  choices: FileChoices = {},
): Promise<ShardCut> {
  const context = contextOf(repository);
  return context.cut(await context.scan(), { model: "words", count, scope, choices, shardTokens });
}

/** What stands in each shard, to be compared between cuts. */
function namesOf({ shards }: ShardCut): string[] {
  return shards.map(({ files }) => files.map(({ path }) => path).join(" "));
}

const line = fc.stringMatching(/^[a-z]{1,6}( [a-z]{1,6}){0,5}$/);
const content = fc.array(
  fc.oneof(
    line,
    fc.constant(""),
    line.map((text) => `  ${text}`),
  ),
  { maxLength: 60 },
);
const path = fc
  .tuple(fc.constantFrom("", "src/", "src/deep/", "test/", "docs/"), fc.stringMatching(/^[a-z]{1,8}$/))
  .map(([folder, name]) => `${folder}${name}.ts`);
const repositories = fc.dictionary(
  path,
  content.map((lines) => lines.join("\n").trimEnd()),
  { minKeys: 1, maxKeys: 40 },
);

test("property: every line of every file stands in exactly one shard, each within the limit", async () => {
  await fc.assert(
    fc.asyncProperty(repositories, fc.integer({ min: 24, max: 400 }), async (files, shardTokens) => {
      const { shards, leftOut } = await cut(new MemoryRepository(files), shardTokens);
      const seen = new Map(Object.entries(files).map(([name, text]) => [name, text.split("\n").map(() => 0)]));
      for (const shard of shards) {
        assert.ok(shard.tokens <= shardTokens);
        assert.equal(
          shard.tokens,
          shard.files.reduce((total, { tokens }) => total + tokens, 0),
        );
        for (const { file, text, startLine, endLine } of shard.files) {
          const lines = (files[file.path] ?? "").split("\n");
          assert.equal(text, lines.slice(startLine - 1, endLine).join("\n"), "the lines are those of the file");
          const counts = seen.get(file.path) ?? [];
          for (let at = startLine - 1; at < endLine; at++) counts[at] = (counts[at] ?? 0) + 1;
        }
      }
      assert.deepEqual(leftOut, [], "no line is longer than a shard here");
      for (const [name, counts] of seen)
        assert.ok(
          counts.every((times) => times === 1),
          name,
        );
    }),
    { numRuns: 300 },
  );
});

test("property: the same files give the same cut, whatever order they are listed in", async () => {
  await fc.assert(
    fc.asyncProperty(repositories, async (files) => {
      const reversed = Object.fromEntries(Object.entries(files).reverse());
      assert.deepEqual(
        namesOf(await cut(new MemoryRepository(files), 120)),
        namesOf(await cut(new MemoryRepository(reversed), 120)),
      );
    }),
    { numRuns: 50 },
  );
});

test("property: a file that grows moves no other shard, one that shrinks none but those it shares one with afterwards", async () => {
  const edited = fc.tuple(repositories, fc.nat(), fc.integer({ min: 1, max: 40 }));
  await fc.assert(
    fc.asyncProperty(edited, async ([files, which, lines]) => {
      // An empty file is of another class than one with text, and stands elsewhere.
      const names = Object.keys(files).filter((name) => files[name] !== "");
      const name = names[which % Math.max(1, names.length)];
      if (name === undefined) return;
      const grown = { ...files, [name]: `${files[name] ?? ""}\n${"one more line\n".repeat(lines)}`.trimEnd() };
      const small = await cut(new MemoryRepository(files), 150);
      const large = await cut(new MemoryRepository(grown), 150);
      const others = ({ shards }: ShardCut): string[] =>
        namesOf({ shards: shards.filter((shard) => !shard.files.some(({ file }) => file.path === name)), leftOut: [] });
      const ofLarge = new Set(namesOf(large));
      for (const shard of others(small)) assert.ok(ofLarge.has(shard), `${shard} was moved by an edit of ${name}`);
    }),
    { numRuns: 300 },
  );
});

test("a file larger than a shard is cut where a block begins, its parts tell their lines, and a line too long is told", async () => {
  const block = (index: number): string => `function f${String(index)}() {\n  return ${"word ".repeat(12)};\n}\n`;
  const blocks = Array.from({ length: 30 }, (_, index) => block(index)).join("\n");
  const repository = new MemoryRepository({ "src/large.ts": blocks, "src/long.ts": `short\n${"word ".repeat(90)}end` });
  const { shards, leftOut } = await cut(repository, 80);
  const parts = shards.flatMap(({ files }) => files).filter(({ file }) => file.path === "src/large.ts");
  assert.ok(parts.length > 3);
  for (const { path: name, text, startLine, endLine } of parts) {
    assert.equal(name, `src/large.ts:${String(startLine)}-${String(endLine)}`);
    assert.match(text, /^function f\d+\(\) \{/);
  }
  assert.deepEqual(
    leftOut.map(({ file, line: at }) => `${file.path}:${String(at)}`),
    ["src/long.ts:2"],
  );
  assert.deepEqual(shards.flatMap(({ files }) => files).filter(({ text }) => text === "short").length, 1);
});

test("only the scope is cut, and nothing to read is said", async () => {
  const repository = new MemoryRepository({ "a/x.ts": "x", "b/y.ts": "y" });
  assert.deepEqual(namesOf(await cut(repository, 100, ["b"])), ["b/y.ts"]);
  assert.equal(await failureKind(cut(repository, 100, ["c"])), "repository-empty");
});

test("what the user left out is in no shard, whatever folder it lies in", async () => {
  const repository = new MemoryRepository({ "src/a.ts": "one", "src/deep/b.ts": "two", "docs/c.md": "three" });
  const choices: FileChoices = { "src/": "out", "src/deep/b.ts": "full" };
  const { shards } = await cut(repository, 100, [], choices);
  const paths = shards.flatMap(({ files }) => files.map(({ file }) => file.path)).sort();
  assert.deepEqual(paths, ["docs/c.md", "src/deep/b.ts"]);
  const all: FileChoices = { "/": "out" };
  assert.equal(await failureKind(cut(repository, 100, [], all)), "repository-empty");
});
