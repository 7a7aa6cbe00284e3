// The plan of a prompt: deterministic, never over its budget, holding what the question names, accounting for every file.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { planBase } from "../../src/context/basePlan";
import type { RepositoryContext } from "../../src/context/repositoryContext";
import { FileFacts } from "../../src/context/fileFacts";
import type { ContextPlan } from "../../src/context/plan";
import { secretsHere } from "../../src/context/secretRules";
import type { CountTokens } from "../../src/context/tokenCounts";
import { Scanner } from "../../src/context/scan";
import { TokenCounts } from "../../src/context/tokenCounts";
import { contextOf, MemoryRepository } from "./folders";

/** The plan takes any way to count; four characters a token is as good as a tokenizer for its own rules. */
const count: CountTokens = (texts) => Promise.resolve(texts.map((text) => Math.ceil(text.length / 4)));

async function planned(
  context: RepositoryContext,
  options: {
    budget: number;
    question?: string;
    pinned?: readonly string[];
    scope?: readonly string[];
    available?: number;
  },
): Promise<ContextPlan> {
  return context.plan(await context.scan(), {
    model: "m",
    count,
    budgetTokens: options.budget,
    availableTokens: options.available ?? options.budget,
    question: options.question ?? "",
    pinned: options.pinned ?? [],
    scope: options.scope ?? [],
  });
}

const filler = (name: string, lines: number): string =>
  `export function ${name}() {\n${`  step("${name}");\n`.repeat(lines)}}\n`;

const names = ["alpha", "beta", "gamma", "delta"] as const;
const repositoryFiles = fc.dictionary(
  fc
    .tuple(
      fc.constantFrom("src", "lib/deep", "test", "docs", ""),
      fc.stringMatching(/^[a-z]{1,6}$/),
      fc.constantFrom("ts", "md", "json", "py"),
    )
    .map(([folder, name, extension]) => `${folder}${folder === "" ? "" : "/"}${name}.${extension}`),
  fc.tuple(fc.constantFrom(...names), fc.nat(60)).map(([name, lines]) => filler(name, lines)),
  { minKeys: 1, maxKeys: 25 },
);

test("property: within the budget, every file accounted for once, base first and independent of the question", async () => {
  await fc.assert(
    fc.asyncProperty(
      repositoryFiles,
      fc.integer({ min: 60, max: 6_000 }),
      fc.constantFrom(...names, "nothing"),
      fc.boolean(),
      fc.double({ min: 0.3, max: 1, noNaN: true }),
      async (files, budget, asked, pins, share) => {
        const context = contextOf(new MemoryRepository(files));
        const pinned = pins ? Object.keys(files).slice(0, 2) : [];
        const available = Math.floor(budget * share);
        const plan = await planned(context, { budget, available, question: `Where is \`${asked}\` defined?`, pinned });
        const tokens = plan.segments.reduce((sum, segment) => sum + segment.tokens, 0);
        assert.ok(tokens <= available, `${String(tokens)} of ${String(available)}`);
        assert.equal(plan.summary.readTokens, tokens);
        assert.deepEqual(plan.files.map((file) => file.path).sort(), Object.keys(files).sort());
        const kinds = plan.segments.map((segment) => segment.kind).join(" ");
        assert.match(kinds, /^(base ?)*(supplement ?)*$/);
        const again = await planned(
          contextOf(new MemoryRepository(Object.fromEntries(Object.entries(files).reverse()))),
          {
            budget,
            available,
            question: `Where is \`${asked}\` defined?`,
            pinned,
          },
        );
        assert.deepEqual(
          again.segments.map(({ path, text, kind }) => [path, text, kind]),
          plan.segments.map(({ path, text, kind }) => [path, text, kind]),
        );
        if (available === budget && pinned.length === 0 && !plan.files.some(({ reason }) => reason === "supplement")) {
          const other = await planned(context, { budget, question: "What is this?" });
          assert.equal(other.prefixKey, plan.prefixKey);
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("a repository that fits is read whole, without a reserve", async () => {
  const files = { "a.ts": filler("alpha", 5), "b.ts": filler("beta", 5) };
  const plan = await planned(contextOf(new MemoryRepository(files)), { budget: 200 });
  assert.deepEqual(
    plan.segments.map(({ path, kind }) => [path, kind]),
    [
      ["a.ts", "base"],
      ["b.ts", "base"],
    ],
  );
});

test("source comes before the rest, and a file's time changes nothing", async () => {
  const files = {
    "README.md": filler("alpha", 20),
    "test/a.test.ts": filler("beta", 20),
    "src/a.ts": filler("gamma", 20),
    "src/large.ts": filler("delta", 700),
  };
  const repository = new MemoryRepository(files);
  const context = contextOf(repository);
  const plan = await planned(context, { budget: 400 });
  assert.equal(plan.segments[0]?.path, "src/a.ts");
  assert.equal(plan.files.find(({ path }) => path === "src/large.ts")?.mode, "outline");
  repository.write("src/a.ts", files["src/a.ts"], 77_000);
  assert.equal((await planned(context, { budget: 400 })).prefixKey, plan.prefixKey);
});

const many = Object.fromEntries(
  Array.from({ length: 30 }, (_, i) => [`src/f${String(i).padStart(2, "0")}.ts`, filler(`step${String(i)}`, 20)]),
);

test("the file that defines what the question names is in the plan, and stands last", async () => {
  const files = {
    ...many,
    "zz/deep/down/target.ts": filler("openTheGate", 20),
    "zz/user.ts": "openTheGate();\n".repeat(30),
  };
  const context = contextOf(new MemoryRepository(files));
  const base = await planned(context, { budget: 1_000 });
  assert.equal(
    base.segments.some(({ path, mode }) => path.endsWith("target.ts") && mode === "full"),
    false,
  );
  for (const question of [
    "Where is `openTheGate` defined?",
    "where is openTheGate defined",
    'What does "openTheGate" do?',
    "What does gates.openTheGate() do?",
    'Explain this code:\n```ts\nexport function openTheGate() {\n  step("openTheGate");\n```',
    "What is in `down/target.ts`?",
  ]) {
    const plan = await planned(context, { budget: 1_000, question });
    assert.equal(plan.segments.at(-1)?.path, "zz/deep/down/target.ts", question);
    assert.equal(plan.segments.at(-1)?.reason, "supplement");
    assert.equal(plan.segments.at(-1)?.mode, "full");
    assert.equal(plan.prefixKey, base.prefixKey);
  }
});

test("a defining file larger than the reserve takes the place of the base's last files", async () => {
  const files = { ...many, "zz/target.ts": filler("openTheGate", 120) };
  const context = contextOf(new MemoryRepository(files));
  const base = await planned(context, { budget: 1_000 });
  const plan = await planned(context, { budget: 1_000, question: "Where is `openTheGate` defined?" });
  assert.equal(plan.segments.at(-1)?.path, "zz/target.ts");
  const kept = plan.segments.filter(({ kind }) => kind === "base").map(({ path }) => path);
  assert.ok(kept.length > 0);
  assert.deepEqual(
    kept,
    base.segments.slice(0, kept.length).map(({ path }) => path),
  );
});

test("a pinned file is read, also one that was set aside for its form", async () => {
  const files = { ...many, "gen.ts": "// @generated\nexport const openTheGate = 1;\n" };
  const context = contextOf(new MemoryRepository(files));
  const plan = await planned(context, { budget: 1_000, pinned: ["gen.ts", "not/there.ts"] });
  const last = plan.segments.at(-1);
  assert.deepEqual([last?.path, last?.reason], ["gen.ts", "pinned"]);
  assert.equal(plan.files.filter(({ path }) => path === "gen.ts").length, 1);
});

test("a scope limits what is read, not what is accounted for", async () => {
  const files = { ...many, "app/a.ts": filler("alpha", 3), "application/b.ts": filler("beta", 3) };
  const plan = await planned(contextOf(new MemoryRepository(files)), { budget: 9_000, scope: ["app"] });
  assert.deepEqual(
    plan.segments.map(({ path }) => path),
    ["app/a.ts"],
  );
  assert.equal(plan.files.find(({ path }) => path === "application/b.ts")?.reason, "out-of-scope");
  assert.equal(plan.summary.totalFiles, 32);
});

test("a repository without a readable file is refused by name", async () => {
  await assert.rejects(
    planned(contextOf(new MemoryRepository({ "a.png": "x" })), { budget: 100 }),
    /repository-empty: memory/,
  );
});

test("the base is planned from memory while nothing changes", async () => {
  let calls = 0;
  const counted: CountTokens = (texts, signal) => {
    calls += texts.length;
    return count(texts, signal);
  };
  const repository = new MemoryRepository(many);
  const context = contextOf(repository);
  const request = {
    model: "m",
    count: counted,
    budgetTokens: 1_000,
    availableTokens: 1_000,
    question: "",
    scope: [],
    pinned: [],
  };
  await context.plan(await context.scan(), request);
  const first = calls;
  await context.plan(await context.scan(), request);
  assert.equal(calls, first);
  repository.write("src/f00.ts", filler("changed", 20), 9_000);
  await context.plan(await context.scan(), request);
  assert.equal(calls, first + 2, "the changed file, whole and as an outline");
});

test("of 50,000 files only plausible ones are counted", async () => {
  const files = Object.fromEntries(
    Array.from({ length: 50_000 }, (_, i) => [`d${String(i % 500)}/f${String(i)}.ts`, filler(`f${String(i)}`, i % 40)]),
  );
  const scan = await new Scanner(new MemoryRepository(files)).scan();
  let texts = 0;
  const counts = new TokenCounts(
    (batch, signal) => {
      texts += batch.length;
      return count(batch, signal);
    },
    new FileFacts({ secrets: secretsHere }),
  );
  const base = await planBase({
    scan,
    counts,
    budgetTokens: 30_000,
    reserveTokens: 6_000,
    scope: [],
    ranking: "first",
  });
  assert.ok(base.tokens > 23_000 && base.tokens <= 24_000, String(base.tokens));
  assert.ok(texts < 2_000, String(texts));
});
