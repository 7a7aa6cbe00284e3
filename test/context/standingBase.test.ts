// The base from question to question: what was read stays where it is, the newest text always holds, and nothing drifts.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { LayoutStore } from "../../src/context/layoutStore";
import type { ContextPlan } from "../../src/context/plan";
import type { RepositoryContext } from "../../src/context/repositoryContext";
import type { ContextRequest } from "../../src/context/repositoryContext";
import type { PromptSegment } from "../../src/context/segment";
import type { CountTokens } from "../../src/context/tokenCounts";
import { contextOf, MemoryRepository } from "./folders";

const count: CountTokens = (texts) => Promise.resolve(texts.map((text) => Math.ceil(text.length / 4)));

async function planned(context: RepositoryContext, request: Partial<ContextRequest> = {}): Promise<ContextPlan> {
  const budgetTokens = request.budgetTokens ?? 4_000;
  return context.plan(await context.scan(), {
    model: "m",
    count,
    budgetTokens,
    availableTokens: budgetTokens,
    question: "",
    scope: [],
    pinned: [],
    ...request,
  });
}

/** A plan that the model reads. */
async function read(context: RepositoryContext, request: Partial<ContextRequest> = {}): Promise<ContextPlan> {
  const plan = await planned(context, request);
  await context.markRead(plan);
  return plan;
}

const code = (name: string, lines: number): string =>
  `export function ${name}() {\n${`  step("${name}");\n`.repeat(lines)}}`;

function repositoryOf(count: number, lines = 20): MemoryRepository {
  const names = Array.from({ length: count }, (_, index) => `src/f${String(index).padStart(2, "0")}.ts`);
  return new MemoryRepository(Object.fromEntries(names.map((name, index) => [name, code(`f${String(index)}`, lines)])));
}

/** What a careful reader of the prompt takes the files to be. */
function readBy(prompt: readonly PromptSegment[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const { note, file } of prompt) {
    const gone = /The file (.*) was deleted\./.exec(note)?.[1];
    const [, from, to] = /The file (.*) is now (.*)\./.exec(note) ?? [];
    if (gone !== undefined) files.delete(gone);
    if (from !== undefined && to !== undefined) {
      files.set(to, files.get(from) ?? "");
      files.delete(from);
    }
    if (file !== null) files.set(file.path, file.text);
  }
  return files;
}

const ofKind = (plan: ContextPlan, kind: PromptSegment["kind"]): PromptSegment[] =>
  plan.prompt.filter((segment) => segment.kind === kind);
const pathsOf = (segments: readonly PromptSegment[]): string[] => segments.map(({ file }) => file?.path ?? "");
const notesOf = (plan: ContextPlan): string[] => ofKind(plan, "delta").map(({ note }) => note.trim());
function costOf(prompt: readonly PromptSegment[]): number {
  return prompt.reduce((sum, { note, file }) => {
    const body = file === null ? 0 : Math.ceil(`${file.path}">\n${file.text}\n`.length / 4) + 6;
    return sum + body + (note === "" ? 0 : Math.ceil(note.length / 4));
  }, 0);
}

test("a file that changes keeps its place with its old text, and its newest text stands behind the base", async () => {
  const repository = repositoryOf(6);
  const context = contextOf(repository);
  const first = await read(context);
  repository.write("src/f01.ts", code("changed", 20), 9_000);
  const second = await read(context);
  assert.equal(second.prefixKey, first.prefixKey);
  assert.deepEqual(ofKind(second, "base"), ofKind(first, "base"));
  assert.deepEqual(pathsOf(ofKind(second, "delta")), ["src/f01.ts"]);
  assert.equal(second.prompt.at(-1)?.file?.text, code("changed", 20));
  assert.deepEqual(
    second.segments.filter(({ path }) => path === "src/f01.ts").map(({ text }) => text),
    [code("changed", 20)],
    "answers are checked against the newest text alone",
  );

  // Again, and again: the last delta is replaced. Another file: its delta comes behind.
  repository.write("src/f01.ts", code("changedAgain", 20), 10_000);
  assert.deepEqual(pathsOf(ofKind(await read(context), "delta")), ["src/f01.ts"]);
  repository.write("src/f00.ts", code("other", 20), 11_000);
  const two = await read(context);
  assert.deepEqual(pathsOf(ofKind(two, "delta")), ["src/f01.ts", "src/f00.ts"]);
  // The first one once more: those that were read are not read again.
  repository.write("src/f01.ts", code("third", 20), 12_000);
  const three = await read(context);
  assert.deepEqual(three.prompt.slice(0, two.prompt.length), two.prompt);
  assert.equal(readBy(three.prompt).get("src/f01.ts"), code("third", 20));

  // Taken back: what was said of it goes.
  repository.write("src/f01.ts", code("f1", 20), 13_000);
  repository.write("src/f00.ts", code("f0", 20), 13_000);
  const back = await read(context);
  assert.deepEqual(back.prompt, first.prompt);
});

test("a question about a changed file reads its newest text again, once oftener than there are old copies", async () => {
  const repository = repositoryOf(6);
  const context = contextOf(repository);
  await read(context);
  repository.write("src/f01.ts", code("lanternGlyphs", 20), 9_000);
  const question = "Where is `lanternGlyphs` defined?";
  const copiesIn = (plan: ContextPlan): number => pathsOf(ofKind(plan, "supplement")).length;
  const plan = await read(context, { question });
  assert.deepEqual(pathsOf(ofKind(plan, "supplement")), ["src/f01.ts", "src/f01.ts"]);
  assert.equal(plan.files.filter(({ path }) => path === "src/f01.ts").length, 1);
  assert.equal(costOf(plan.prompt), plan.summary.readTokens);
  // Another file changes, then this one again: two old copies stand before the newest.
  repository.write("src/f02.ts", code("f2", 21), 10_000);
  await read(context);
  repository.write("src/f01.ts", code("lanternGlyphs", 21), 11_000);
  const twice = await read(context, { question });
  assert.equal(copiesIn(twice), 3);
  assert.equal(costOf(twice.prompt), twice.summary.readTokens);
  // Where there is less room, once.
  assert.equal(copiesIn(await planned(context, { question, availableTokens: 1_500 })), 1);
  assert.deepEqual(ofKind(await read(context, { question: "Where is `f3` defined?" }), "supplement"), []);
});

test("deleted, moved and new files are told in a line or behind the base", async () => {
  const repository = repositoryOf(6);
  const context = contextOf(repository);
  await read(context);
  repository.remove("src/f01.ts");
  repository.remove("src/f02.ts");
  repository.write("lib/moved.ts", code("f2", 20), 9_000);
  repository.write("src/new.ts", code("fresh", 20), 9_000);
  const plan = await read(context);
  assert.deepEqual(notesOf(plan), ["The file src/f02.ts is now lib/moved.ts.", "The file src/f01.ts was deleted.", ""]);
  assert.equal(plan.prompt.at(-1)?.file?.path, "src/new.ts");
  assert.deepEqual([...plan.segments.map(({ path }) => path)].sort(), [...repository.files.keys()].sort());
  assert.deepEqual(
    plan.files.filter(({ mode }) => mode !== "dropped").length,
    repository.files.size,
    "each file is accounted for once",
  );
});

test("a rebase moves what changed to the end and keeps everything before the first change", async () => {
  const repository = repositoryOf(8);
  const context = contextOf(repository);
  const first = await read(context);
  repository.write("src/f03.ts", code("changed", 20), 9_000);
  repository.remove("src/f05.ts");
  assert.equal(ofKind(await read(context), "delta").length, 2);
  const rebased = await read(context, { rebase: true });
  assert.deepEqual(pathsOf(rebased.prompt), [
    ...pathsOf(first.prompt).slice(0, 3),
    "src/f04.ts",
    "src/f06.ts",
    "src/f07.ts",
    "src/f03.ts",
  ]);
  assert.equal(ofKind(rebased, "delta").length, 0);
  // The order stays, and the file that changed last costs itself alone when it changes again.
  repository.write("src/f03.ts", code("changedAgain", 20), 10_000);
  const again = await read(context);
  assert.deepEqual(pathsOf(again.prompt), pathsOf(rebased.prompt));
  assert.equal(ofKind(again, "delta").length, 0);
});

test("deltas that grow past their share give way to a rebase", async () => {
  const repository = repositoryOf(20, 20);
  const context = contextOf(repository);
  await read(context, { budgetTokens: 4_000 });
  let deltas = 0;
  let rebases = 0;
  for (let edit = 0; edit < 12; edit += 1) {
    repository.write(`src/f0${String(edit % 6)}.ts`, code(`edit${String(edit)}`, 20), 9_000 + edit);
    const plan = await read(context, { budgetTokens: 4_000 });
    const now = ofKind(plan, "delta");
    if (now.length < deltas) rebases += 1;
    deltas = now.length;
    assert.ok(costOf(now) <= 500, String(costOf(now)));
  }
  assert.ok(rebases > 0);
});

test("what was planned and not read binds nobody; what was read and changed since is told", async () => {
  const repository = repositoryOf(6);
  const context = contextOf(repository);
  await planned(context);
  repository.write("src/f01.ts", code("changed", 20), 9_000);
  assert.equal(ofKind(await planned(context), "delta").length, 0);
  assert.deepEqual(context.stale, []);
  await read(context);
  repository.write("src/f01.ts", code("changedAgain", 20), 19_000);
  repository.remove("src/f02.ts");
  const plan = await planned(context);
  assert.deepEqual(context.stale, ["src/f01.ts", "src/f02.ts"]);
  await context.markRead(plan);
  assert.deepEqual(context.stale, []);
});

test("a file that may not be read any more leaves no old copy", async () => {
  const repository = repositoryOf(6);
  const context = contextOf(repository);
  await read(context);
  repository.write(".gitignore", "src/f02.ts\n", 9_000);
  const plan = await read(context);
  assert.ok(plan.prompt.every(({ file }) => file?.path !== "src/f02.ts"));
  assert.equal(plan.files.find(({ path }) => path === "src/f02.ts")?.reason, "ignored");
});

test("property: after any edits the newest text of each file is read last and checked alone, within the budget", async () => {
  const name = fc.integer({ min: 0, max: 9 }).map((index) => `src/f0${String(index)}.ts`);
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ does: fc.constant("edit" as const), name, lines: fc.nat(40) }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant("remove" as const), name }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant("move" as const), name, to: name }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant("undo" as const), name }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant("rebase" as const) }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant("restart" as const) }) },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.constantFrom(2_400, 900, 500),
      async (steps, budgetTokens) => {
        const repository = repositoryOf(8, 15);
        const original = new Map([...repository.files].map(([path, { content }]) => [path, content]));
        const layouts = memoryStore();
        let context = contextOf(repository, { layouts });
        let before = await read(context, { budgetTokens });
        let time = 10_000;
        for (const [index, next] of steps.entries()) {
          time += 5_000;
          if (next.does === "edit") repository.write(next.name, code(`edit${String(index)}`, next.lines), time);
          if (next.does === "remove" && repository.files.size > 1) repository.remove(next.name);
          if (next.does === "undo") {
            repository.write(next.name, Buffer.from(original.get(next.name) ?? []).toString("utf8"), time);
          }
          const moved = next.does === "move" ? repository.files.get(next.name)?.content : undefined;
          if (next.does === "move" && moved) {
            repository.remove(next.name);
            repository.write(next.to, Buffer.from(moved).toString("utf8"), time);
          }
          if (next.does === "restart") context = contextOf(repository, { layouts });
          const rebase = next.does === "rebase";
          const plan = await read(context, { budgetTokens, rebase });
          assert.deepEqual(context.stale, []);

          const newest = new Map(
            [...repository.files].map(([path, { content }]) => [path, Buffer.from(content ?? []).toString("utf8")]),
          );
          const known = readBy(plan.prompt);
          const packed = new Map(plan.segments.map(({ path, text }) => [path, text]));
          for (const { path, source } of plan.segments) {
            assert.equal(source, newest.get(path), "checked against the newest text");
          }
          assert.deepEqual(known, packed, "the newest text is read last, and nothing else is left standing");
          assert.deepEqual(plan.files.map(({ path }) => path).sort(), [...newest.keys()].sort());
          assert.ok(costOf(plan.prompt) <= budgetTokens, String(costOf(plan.prompt)));
          assert.equal(costOf(plan.prompt), plan.summary.readTokens);
          const isSameBase = plan.prefixKey === before.prefixKey;
          assert.ok(isSameBase || ofKind(plan, "delta").length === 0, "no drift: the base changes by a rebase alone");
          if (rebase) assert.equal(ofKind(plan, "delta").length, 0);
          before = plan;
        }
      },
    ),
    { numRuns: 100 },
  );
});

function memoryStore(): LayoutStore & { readonly contents: Map<string, string> } {
  const contents = new Map<string, string>();
  return {
    contents,
    load: (name) => Promise.resolve(contents.get(name)),
    save: (name, content) => {
      contents.set(name, content);
      return Promise.resolve();
    },
  };
}
