// The tree of a plan: every file is in it once, folders are the sum of what is in them, and no slice of the work is long.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Pace } from "../../src/context/pace";
import {
  buildTree,
  childrenOf,
  entriesAtOnce,
  fileStates,
  isChoosable,
  stateOf,
  stateOfFolder,
} from "../../src/extension/contextTree";
import type { FileNode, FolderNode, TreeNode, TreeShape } from "../../src/extension/contextTree";
import type { PlannedFile } from "../../src/protocol/qa";

const noPace = { breathe: (): Promise<void> => Promise.resolve() };
const everything: TreeShape = { state: null, order: "name" };

const kinds = [
  ["full", "base"],
  ["full", "chosen"],
  ["outline", "base"],
  ["dropped", "over-budget"],
  ["dropped", "chosen-out"],
  ["dropped", "ignored"],
  ["dropped", "generated"],
] as const satisfies readonly (readonly [PlannedFile["mode"], PlannedFile["reason"]])[];

const name = fc.constantFrom("a", "b", "c", "d.ts", "__proto__", "constructor");
const plannedFiles = fc
  .uniqueArray(fc.tuple(fc.array(name, { minLength: 1, maxLength: 5 }), fc.constantFrom(...kinds), fc.nat(10_000)), {
    selector: ([parts]) => parts.join("/"),
    maxLength: 60,
  })
  .map((items) =>
    items.map(([parts, [mode, reason], tokens]): PlannedFile => ({ path: parts.join("/"), tokens, mode, reason })),
  );

function filesBelow(node: TreeNode, shape: TreeShape): FileNode[] {
  return childrenOf(node, shape).flatMap((child) => (child.kind === "file" ? [child] : filesBelow(child, shape)));
}

function foldersBelow(node: FolderNode): FolderNode[] {
  return [...node.folders.values()].flatMap((folder) => [folder, ...foldersBelow(folder)]);
}

test("property: every file is there once, whatever is shown and in whatever order", async () => {
  await fc.assert(
    fc.asyncProperty(
      plannedFiles,
      fc.constantFrom(null, ...fileStates),
      fc.constantFrom<TreeShape["order"]>("name", "tokens"),
      async (files, state, order) => {
        const root = await buildTree(files, noPace);
        const shown = filesBelow(root, { state, order }).map(({ file }) => file);
        const wanted = files.filter((file) => state === null || stateOf(file) === state);
        const byPath = (a: PlannedFile, b: PlannedFile): number => (a.path < b.path ? -1 : 1);
        assert.deepEqual([...shown].sort(byPath), [...wanted].sort(byPath));
      },
    ),
  );
});

test("property: a folder is the sum of what is in it, and has one state only if all of it has", async () => {
  await fc.assert(
    fc.asyncProperty(plannedFiles, async (files) => {
      const root = await buildTree(files, noPace);
      for (const folder of [root, ...foldersBelow(root)]) {
        const inside = files.filter(({ path }) => path.startsWith(folder.path));
        const read = inside.filter(({ mode }) => mode !== "dropped");
        assert.equal(
          folder.tokens,
          read.reduce((sum, { tokens }) => sum + tokens, 0),
        );
        for (const state of fileStates) {
          assert.equal(folder.counts[state], inside.filter((file) => stateOf(file) === state).length);
        }
        const readable = new Set(inside.map(stateOf).filter((state) => state !== "excluded"));
        const [only] = readable;
        assert.equal(stateOfFolder(folder), readable.size === 0 ? "excluded" : readable.size === 1 ? only : null);
      }
    }),
  );
});

test("folders come before files, and the largest first when they are sorted by tokens", async () => {
  const files: PlannedFile[] = [
    { path: "z10.ts", tokens: 4, mode: "full", reason: "base" },
    { path: "Z9.ts", tokens: 5, mode: "full", reason: "base" },
    { path: "a.ts", tokens: 50, mode: "full", reason: "base" },
    { path: "small/x.ts", tokens: 1, mode: "full", reason: "base" },
    { path: "large/x.ts", tokens: 9, mode: "outline", reason: "base" },
    { path: "node_modules/", tokens: 0, mode: "dropped", reason: "ignored" },
  ];
  const root = await buildTree(files, noPace);
  const names = (shape: TreeShape): string[] =>
    childrenOf(root, shape).map((node) => ("name" in node ? node.name : ""));
  assert.deepEqual(names(everything), ["large", "small", "a.ts", "node_modules/", "Z9.ts", "z10.ts"]);
  assert.deepEqual(names({ state: null, order: "tokens" }), [
    "large",
    "small",
    "a.ts",
    "Z9.ts",
    "z10.ts",
    "node_modules/",
  ]);
  assert.deepEqual(names({ state: "outline", order: "name" }), ["large"]);
});

test("what can be chosen: text that is read or could be, and text left out for its form only", async () => {
  const reasons = ["ignored", "binary", "secret", "generated", "lock-file", "over-budget"] as const;
  const files = reasons.map((reason): PlannedFile => ({ path: reason, tokens: 0, mode: "dropped", reason }));
  const root = await buildTree(files, noPace);
  assert.deepEqual(
    root.files.filter(isChoosable).map(({ name: file }) => file),
    ["generated", "lock-file", "over-budget"],
  );
});

test("a folder of very many files is handed out in parts, and none is lost", async () => {
  const count = 2 * entriesAtOnce + 7;
  const files = Array.from({ length: count }, (_, index): PlannedFile => ({
    path: `all/${String(index)}.ts`,
    tokens: index,
    mode: "full",
    reason: "base",
  }));
  const root = await buildTree(files, noPace);
  const folder = root.folders.get("all");
  assert.ok(folder !== undefined);
  const first = childrenOf(folder, everything);
  assert.equal(first.length, entriesAtOnce + 1);
  const more = first[entriesAtOnce];
  assert.ok(more?.kind === "more");
  assert.equal(more.count, entriesAtOnce + 7);
  assert.equal(new Set(filesBelow(folder, everything).map(({ path }) => path)).size, count);
});

test("a hundred thousand files are taken up in slices, between which other work runs", async () => {
  const files = Array.from({ length: 100_000 }, (_, index): PlannedFile => ({
    path: `packages/p${String(index % 100)}/src/deep/folder${String(index % 1_000)}/file${String(index)}.ts`,
    tokens: 10,
    mode: "full",
    reason: "base",
  }));
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const root = await buildTree(files, new Pace());
  clearInterval(timer);
  assert.equal(root.counts.full, files.length);
  assert.ok(turns >= 3, `${String(turns)} turns of other work`);
});

test("a tree that is not wanted any more is given up", async () => {
  const abort = new AbortController();
  abort.abort();
  await assert.rejects(buildTree([{ path: "a", tokens: 1, mode: "full", reason: "base" }], new Pace(abort.signal)));
});
