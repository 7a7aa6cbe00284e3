// The base: what is read in full, as an outline or not at all, in which order, and that nothing but the repository decides it.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { ScannedFile } from "../../src/context/contentCache";
import type { RepositoryContext } from "../../src/context/repositoryContext";
import type { ContextOptions } from "../../src/context/repositoryContext";
import type { ContextPlan } from "../../src/context/plan";
import { joinHistories } from "../../src/context/repoReader";
import type { ChangeHistory } from "../../src/context/repoReader";
import { Pace } from "../../src/context/pace";
import { chooseParsed } from "../../src/context/parseChoice";
import { syntaxOfLines } from "../../src/context/syntax/lineParser";
import type { RepositoryScan } from "../../src/context/scan";
import type { CountTokens } from "../../src/context/tokenCounts";
import type { FileChoices } from "../../src/protocol/qa";
import { contextOf, MemoryRepository } from "./folders";
import { watchThread } from "./heldThread";

const count: CountTokens = (texts) => Promise.resolve(texts.map((text) => Math.ceil(text.length / 4)));

interface Options {
  readonly budget: number;
  readonly question?: string;
  readonly choices?: FileChoices;
  readonly pinned?: readonly string[];
  readonly ranking?: "complete" | "first";
}

async function planned(context: RepositoryContext, options: Options): Promise<ContextPlan> {
  const { budget, question = "", choices = {}, pinned = [], ranking = "complete" } = options;
  return context.plan(await context.scan(), {
    model: "m",
    count,
    budgetTokens: budget,
    availableTokens: budget,
    question,
    scope: [],
    pinned,
    choices,
    ranking,
  });
}

/** A function that calls others, long enough that its outline is much shorter. */
const source = (name: string, calls: readonly string[], lines = 30): string =>
  `export function ${name}() {\n${calls.map((call) => `  ${call}();\n`).join("")}${"  let filling = 1;\n".repeat(lines)}}\n`;

const modeOf = (plan: ContextPlan, path: string): string | undefined =>
  plan.files.find((file) => file.path === path)?.mode;
const reasonOf = (plan: ContextPlan, path: string): string | undefined =>
  plan.files.find((file) => file.path === path)?.reason;
const bytesOf = (plan: ContextPlan): unknown =>
  plan.segments.map(({ path, text, mode, kind, reason, tokens }) => [path, text, mode, kind, reason, tokens]);

/** Facts that come in any order; of a file that is not parsed, fewer. */
function slowly(delays: readonly number[], parsedBytesAtMost?: number): ContextOptions {
  let call = 0;
  const wait = async (): Promise<void> => {
    const turns = delays[call++ % delays.length] ?? 0;
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  return {
    syntax: {
      read: async (path, text) => (await wait(), syntaxOfLines(path, text)),
      readLines: async (path, text) => (await wait(), { ...syntaxOfLines(path, text), references: new Map() }),
    },
    ...(parsedBytesAtMost === undefined ? {} : { parsedBytesAtMost }),
    secrets: { hasSecret: async (_path, text) => (await wait(), text.includes("SECRET")) },
  };
}

const names = ["alpha", "beta", "gamma", "delta", "omega"] as const;
const repositories = fc.dictionary(
  fc
    .tuple(
      fc.constantFrom("src/", "lib/deep/", "test/", ""),
      fc.stringMatching(/^[a-z]{1,4}$/),
      fc.constantFrom("ts", "md", "py"),
    )
    .map(([folder, name, extension]) => `${folder}${name}.${extension}`),
  fc
    .tuple(fc.constantFrom(...names), fc.subarray([...names]), fc.nat(80), fc.boolean())
    .map(([name, calls, lines, isSecret]) => source(name, calls, lines) + (isSecret && lines === 7 ? "SECRET" : "")),
  { minKeys: 3, maxKeys: 25 },
);

test("property: what was learned and ranked before an edit changes no byte of the plan after it", async () => {
  const edits = fc.array(
    fc.record({
      at: fc.nat(24),
      name: fc.constantFrom(...names),
      calls: fc.subarray([...names]),
      lines: fc.nat(80),
      isGone: fc.boolean(),
    }),
    { minLength: 1, maxLength: 4 },
  );
  await fc.assert(
    fc.asyncProperty(
      repositories,
      fc.integer({ min: 200, max: 6_000 }),
      edits,
      fc.option(fc.nat(20_000), { nil: undefined }),
      async (files, budget, changes, parsed) => {
        const repository = new MemoryRepository(files);
        const warm = contextOf(repository, slowly([0], parsed));
        await planned(warm, { budget });
        for (const [step, { at, name, calls, lines, isGone }] of changes.entries()) {
          const paths = [...repository.files.keys()];
          const path = paths[at % paths.length] ?? "a.ts";
          if (isGone && paths.length > 1) repository.remove(path);
          else repository.write(path, source(name, calls, lines), 2_000 + step);
          const cold = contextOf(repository, slowly([0], parsed));
          assert.deepEqual(bytesOf(await planned(warm, { budget })), bytesOf(await planned(cold, { budget })));
        }
      },
    ),
    { numRuns: 150 },
  );
});

test("property: of a repository too large to parse, what is worth most for its size is parsed, and no more than was said", async () => {
  const sized = fc.array(fc.tuple(fc.constantFrom("src", "test"), fc.integer({ min: 1, max: 5_000 })), {
    minLength: 1,
  });
  await fc.assert(
    fc.asyncProperty(sized, fc.nat(100_000), async (sizes, limit) => {
      const files = sizes.map(([folder, bytes], index): ScannedFile => {
        const none = { modifiedMs: 0, excluded: null, hiddenCharacters: 0, removedCharacters: 0 };
        return { path: `${folder}/${String(index)}.ts`, bytes, ...none };
      });
      const total = (list: readonly ScannedFile[]): number => list.reduce((sum, { bytes }) => sum + bytes, 0);
      const isParsed = await chooseParsed(files, new Pace(), limit);
      const [parsed, others] = [files.filter(isParsed), files.filter((file) => !isParsed(file))];
      assert.ok(total(parsed) <= limit);
      if (total(files) <= limit) assert.equal(others.length, 0);
      for (const file of parsed) {
        for (const other of others) {
          const [isTest, isOtherTest] = [file.path.startsWith("test"), other.path.startsWith("test")];
          if (isTest === isOtherTest || isTest) assert.ok(file.bytes < other.bytes);
        }
      }
    }),
  );
});

test("what a prompt shows of a file is parsed, however few are parsed for their names", async () => {
  const files = { ...Object.fromEntries(names.map((name) => [`src/${name}.ts`, source(name, [], 200)])) };
  const outlineOf = (parsedBytesAtMost: number): Promise<ContextPlan> =>
    planned(contextOf(new MemoryRepository(files), { ...slowly([0]), ...marked, parsedBytesAtMost }), { budget: 400 });
  const marked: Pick<ContextOptions, "syntax"> = {
    syntax: {
      read: (path, text) => Promise.resolve({ ...syntaxOfLines(path, text), outline: "// parsed" }),
      readLines: (path, text) => Promise.resolve(syntaxOfLines(path, text)),
    },
  };
  for (const limit of [0, 1_000_000]) {
    const outlines = (await outlineOf(limit)).segments.filter(({ mode }) => mode === "outline");
    assert.ok(outlines.length > 0);
    for (const { path, text } of outlines) assert.match(text, /\/\/ parsed$/, path);
  }
});

test("property: folder order, the order in which facts come and what is known already change no byte", async () => {
  await fc.assert(
    fc.asyncProperty(
      repositories,
      fc.integer({ min: 200, max: 6_000 }),
      fc.array(fc.nat(3), { minLength: 1, maxLength: 9 }),
      fc.option(fc.nat(20_000), { nil: undefined }),
      async (files, budget, delays, parsed) => {
        const expected = await planned(contextOf(new MemoryRepository(files), slowly([0], parsed)), { budget });
        const reversed = Object.fromEntries(Object.entries(files).reverse());
        const other = contextOf(new MemoryRepository(reversed), slowly(delays, parsed));
        await planned(other, { budget, ranking: "first" });
        assert.deepEqual(bytesOf(await planned(other, { budget })), bytesOf(expected));
        const learned = contextOf(new MemoryRepository(files), slowly(delays, parsed));
        await planned(learned, { budget: 2 * budget });
        const plan = await planned(learned, { budget });
        assert.deepEqual(bytesOf(plan), bytesOf(expected));
        assert.equal(plan.prefixKey, expected.prefixKey);
        for (const { path, text } of plan.segments) assert.ok(!text.includes("SECRET"), path);
      },
    ),
    { numRuns: 150 },
  );
});

test("after a save the first ranking is the complete one; before anything is known it is not", async () => {
  const files: Record<string, string> = { "zz/core.ts": source("openTheGate", []) };
  for (let i = 0; i < 20; i++) files[`src/user${String(i)}.ts`] = source(`user${String(i)}`, ["openTheGate"]);
  const repository = new MemoryRepository(files);
  const context = contextOf(repository);
  const [first, complete] = [{ budget: 1_500, ranking: "first" as const }, { budget: 1_500 }];
  const before = await planned(context, first);
  assert.notEqual(modeOf(before, "zz/core.ts"), modeOf(await planned(context, complete), "zz/core.ts"));
  repository.write("src/user7.ts", source("user7", ["openTheGate", "user3"]), 9_000);
  assert.deepEqual(bytesOf(await planned(context, first)), bytesOf(await planned(context, complete)));
});

test("property: an outline's lines are lines of the file in their order, and the budget holds in every ranking", async () => {
  await fc.assert(
    fc.asyncProperty(
      repositories,
      fc.integer({ min: 100, max: 3_000 }),
      fc.constantFrom("complete" as const, "first" as const),
      async (files, budget, ranking) => {
        const plan = await planned(contextOf(new MemoryRepository(files)), { budget, ranking });
        assert.ok(plan.segments.reduce((sum, { tokens }) => sum + tokens, 0) <= budget);
        for (const { path, text, source: whole, mode } of plan.segments) {
          assert.equal(whole, files[path]?.trimEnd());
          if (mode === "full") continue;
          const [notice, ...lines] = text.split("\n");
          assert.match(notice ?? "", /^\(Outline of this file/);
          const all = whole.split("\n");
          let next = 0;
          for (const line of lines.filter((shown) => shown.trim() !== "…")) {
            next = all.indexOf(line, next) + 1;
            assert.ok(next > 0, `${path}: ${line}`);
          }
        }
      },
    ),
    { numRuns: 150 },
  );
});

test("what many files lean on is read in full before what none does, wherever it stands", async () => {
  const files: Record<string, string> = { "zz/deep/core.ts": source("openTheGate", []), "aa.ts": source("first", []) };
  for (let i = 0; i < 40; i++) files[`src/user${String(i)}.ts`] = source(`user${String(i)}`, ["openTheGate"]);
  const context = contextOf(new MemoryRepository(files));
  const modes: string[] = [];
  for (let budget = 500; budget < 9_000; budget += 250) {
    const plan = await planned(context, { budget });
    modes.push(`${modeOf(plan, "zz/deep/core.ts") ?? ""} ${modeOf(plan, "aa.ts") ?? ""}`);
  }
  assert.ok(modes.includes("full outline"), modes.join("; "));
  assert.ok(!modes.includes("outline full") && !modes.includes("dropped full"), modes.join("; "));
});

test("an edit inside a body moves no other file in or out", async () => {
  const files: Record<string, string> = { "core.ts": source("openTheGate", []) };
  for (let i = 0; i < 40; i++) files[`src/user${String(i)}.ts`] = source(`user${String(i)}`, ["openTheGate"]);
  const repository = new MemoryRepository(files);
  const context = contextOf(repository);
  const before = await planned(context, { budget: 2_500 });
  repository.write("src/user3.ts", source("user3", ["openTheGate"], 30).replace("filling = 1", "filling = 2"), 9_000);
  const after = await planned(context, { budget: 2_500 });
  assert.deepEqual(
    after.files.map(({ path, mode }) => [path, mode]).sort(),
    before.files.map(({ path, mode }) => [path, mode]).sort(),
  );
});

test("the user's choices hold: the longest path wins, no question overrides them, what does not fit is told", async () => {
  const files: Record<string, string> = {
    "big/huge.ts": source("huge", [], 2_000),
    "gen.ts": "// @generated\nlet a;\n",
  };
  for (let i = 0; i < 20; i++) files[`src/f${String(i)}.ts`] = source(`f${String(i)}`, []);
  const choices: FileChoices = {
    "src/": "out",
    "src/f3.ts": "full",
    "src/f4.ts": "outline",
    "big/huge.ts": "full",
    "gen.ts": "full",
  };
  const context = contextOf(new MemoryRepository(files));
  const plan = await planned(context, { budget: 2_500, choices, question: "What do `f4` and `f5` do?" });
  assert.deepEqual([modeOf(plan, "src/f3.ts"), reasonOf(plan, "src/f3.ts")], ["full", "chosen"]);
  assert.deepEqual([modeOf(plan, "src/f4.ts"), reasonOf(plan, "src/f4.ts")], ["outline", "chosen"]);
  assert.deepEqual([modeOf(plan, "src/f5.ts"), reasonOf(plan, "src/f5.ts")], ["dropped", "chosen-out"]);
  assert.deepEqual([modeOf(plan, "big/huge.ts"), reasonOf(plan, "big/huge.ts")], ["dropped", "over-budget"]);
  assert.deepEqual([modeOf(plan, "gen.ts"), reasonOf(plan, "gen.ts")], ["full", "chosen"]);
});

test("property: of every file the most specific choice decides, while there is room", async () => {
  const paths = ["a/b/c.ts", "a/b/d.ts", "a/e.ts", "f.ts"];
  const files = Object.fromEntries(paths.map((path, i) => [path, source(`f${String(i)}`, [])]));
  const choice = fc.constantFrom<FileChoices[string]>("full", "outline", "out", "automatic");
  await fc.assert(
    fc.asyncProperty(fc.dictionary(fc.constantFrom(...paths, "a/b/", "a/", "/"), choice), async (choices) => {
      const plan = await planned(contextOf(new MemoryRepository(files)), { budget: 9_000, choices });
      for (const path of paths) {
        const applying = Object.keys(choices).filter(
          (key) => key === path || key === "/" || (key.endsWith("/") && path.startsWith(key)),
        );
        const longest = applying.sort((a, b) => (a === "/" ? 0 : a.length) - (b === "/" ? 0 : b.length)).at(-1);
        const wanted = choices[longest ?? ""] ?? "automatic";
        const mode = wanted === "automatic" ? "full" : wanted === "out" ? "dropped" : wanted;
        assert.equal(modeOf(plan, path), mode, path);
      }
    }),
    { numRuns: 200 },
  );
});

test("a file that holds a secret is left out and counted as such, however it is asked for", async () => {
  const leak = `export const leak = 1;\nconst token = "${"ghp" + "_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xLAbC4"}";\n`;
  const files = { "a.ts": source("alpha", []), "leak.ts": leak };
  for (const options of [
    { choices: { "leak.ts": "full" } as FileChoices },
    { pinned: ["leak.ts"] },
    { question: "Where is `leak`?" },
  ]) {
    const plan = await planned(contextOf(new MemoryRepository(files)), { budget: 4_000, ...options });
    assert.deepEqual(
      plan.segments.map(({ path }) => path),
      ["a.ts"],
    );
    assert.equal(reasonOf(plan, "leak.ts"), "secret");
    assert.equal(plan.summary.totalFiles, 1);
  }
});

class WithHistory extends MemoryRepository {
  constructor(
    files: Readonly<Record<string, string>>,
    public now: ChangeHistory | null,
  ) {
    super(files);
  }
  history(): Promise<ChangeHistory | null> {
    return Promise.resolve(this.now);
  }
}

test("the longest unchanged comes first; what was never committed comes last, or first where the history is cut off", async () => {
  const files = { "a.ts": "let a;", "b.ts": "let b;", "c.ts": "let c;", "new.ts": "let d;" };
  const changedAt = new Map([
    ["a.ts", 3_000],
    ["b.ts", 1_000],
    ["c.ts", 2_000],
  ]);
  const repository = new WithHistory(files, { id: "1", changedAt, isWhole: true });
  const context = contextOf(repository);
  const order = async (): Promise<string[]> =>
    (await planned(context, { budget: 999 })).segments.map(({ path }) => path);
  assert.deepEqual(await order(), ["b.ts", "c.ts", "a.ts", "new.ts"]);
  repository.now = { id: "2", changedAt, isWhole: false };
  assert.deepEqual(await order(), ["new.ts", "b.ts", "c.ts", "a.ts"]);
});

test("without a history files are in order of the day they were written", async () => {
  const repository = new MemoryRepository({ "a.ts": "let a;", "b.ts": "let b;", "c.ts": "let c;" });
  const day = 24 * 60 * 60 * 1_000;
  repository.write("a.ts", "let a;", 5 * day + 7);
  repository.write("b.ts", "let b;", 5 * day + 3);
  repository.write("c.ts", "let c;", 4 * day + 9);
  const plan = await planned(contextOf(repository), { budget: 999 });
  assert.deepEqual(
    plan.segments.map(({ path }) => path),
    ["c.ts", "a.ts", "b.ts"],
  );
});

test("a late change counts by commits: it lifts a file over its equals, and time alone changes nothing", async () => {
  const files = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [`f${String(i).padStart(2, "0")}.ts`, source(`f${String(i)}`, [])]),
  );
  const at = (last: number): ChangeHistory => ({
    id: String(last),
    changedAt: new Map(Object.keys(files).map((path, i) => [path, path === "f29.ts" ? last : i])),
    isWhole: true,
  });
  const fullIn = async (history: ChangeHistory): Promise<string[]> =>
    (await planned(contextOf(new WithHistory(files, history)), { budget: 2_000 })).files
      .filter(({ mode }) => mode === "full")
      .map(({ path }) => path)
      .sort();
  const soon = await fullIn(at(100));
  assert.ok(soon.includes("f29.ts"));
  assert.deepEqual(await fullIn(at(1e9)), soon);
});

test("several folders' histories are one", () => {
  const a = { id: "x", changedAt: new Map([["f", 1]]), isWhole: true };
  assert.equal(
    joinHistories([
      ["a", null],
      ["b", null],
    ]),
    null,
  );
  const joined = joinHistories([
    ["a", a],
    ["b", null],
  ]);
  assert.deepEqual([[...(joined?.changedAt ?? [])], joined?.isWhole], [[["a/f", 1]], false]);
});

test("a scan of what may have changed reads that alone, and looks at everything where that does not do", async () => {
  const repository = new MemoryRepository({ "a.ts": "1", "b.ts": "2" });
  const context = contextOf(repository);
  const scanOf = (...changed: string[]): Promise<RepositoryScan> => {
    for (const path of changed) context.noteChange(path);
    return context.scan({ onlyNoted: true });
  };
  const first = await context.scan();
  assert.equal(await scanOf(), first);
  repository.write("a.ts", "11", 2_000);
  repository.write("b.ts", "22", 2_000);
  const reads = repository.reads;
  const second = await scanOf("a.ts");
  assert.equal(repository.reads, reads + 1);
  assert.equal(await second.text(second.files[0] as (typeof second.files)[0]), "11");
  repository.write("c.ts", "3", 2_000);
  assert.deepEqual(
    (await scanOf("c.ts")).files.map(({ path }) => path),
    ["a.ts", "b.ts", "c.ts"],
  );
  repository.files.delete("a.ts");
  assert.deepEqual(
    (await scanOf("a.ts")).files.map(({ path }) => path),
    ["b.ts", "c.ts"],
  );
  repository.write(".gitignore", "b.ts\n", 3_000);
  await context.scan();
  repository.write(".gitignore", "c.ts\n", 4_000);
  assert.deepEqual(
    (await scanOf(".gitignore")).files.map(({ path }) => path),
    [".gitignore", "b.ts"],
  );
});

test("a file that goes away while the others are learned costs them none of their rank", async () => {
  const files = Object.fromEntries(
    Array.from({ length: 12 }, (_, index) => [
      `src/a${String(index)}.ts`,
      source(`call${String(index)}`, [`call${String(7 + ((index * 5) % 3))}`]),
    ]),
  );
  const modes = async (goes: boolean, budget: number): Promise<unknown> => {
    const repository = new MemoryRepository({ ...files, "test/gone.ts": source("gone", []) });
    const hasSecret = (path: string): Promise<boolean> => {
      if (goes && path !== "test/gone.ts") repository.remove("test/gone.ts");
      return Promise.resolve(false);
    };
    const plan = await planned(contextOf(repository, { secrets: { hasSecret }, cacheBytes: 0 }), { budget });
    return plan.files.filter(({ path }) => path !== "test/gone.ts").map(({ path, mode }) => [path, mode]);
  };
  for (const budget of [400, 800, 1_200]) assert.deepEqual(await modes(true, budget), await modes(false, budget));
});

test("ten thousand files are ranked in slices, and after one save no file is parsed but that one", async () => {
  const files: Record<string, string> = {};
  for (let i = 0; i < 10_000; i++) {
    const calls = [1, 7, 31, 997].map((step) => `f${String((i * step + 13) % 10_000)}`);
    files[`d${String(i % 97)}/f${String(i)}.ts`] = source(`f${String(i)}`, calls, 20);
  }
  const repository = new MemoryRepository(files);
  await repository.readDirectory("");
  let parsed = 0;
  const context = contextOf(repository, {
    syntax: {
      read: (path, text) => (parsed++, Promise.resolve(syntaxOfLines(path, text))),
      readLines: () => Promise.reject(new Error("there is time to parse them all")),
    },
    secrets: { hasSecret: () => Promise.resolve(false) },
  });
  await planned(context, { budget: 1_000 });
  assert.equal(parsed, 10_000);
  const checkSlices = watchThread();
  await planned(context, { budget: 100_000 });
  repository.write("d1/f1.ts", source("f1", ["f2", "f3"], 21), 9_000);
  const before = parsed;
  await planned(context, { budget: 100_000 });
  checkSlices();
  assert.equal(parsed, before + 1);
});
