// A question put to every shard, with the real engine and the embedded model: the same as each shard alone, and every way that a
// part of it can fail.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { AskInput } from "../../src/answer/ask";
import { checkCitations } from "../../src/answer/citations";
import { generateAnswer } from "../../src/answer/generation";
import type { ShardOutcome } from "../../src/answer/scan";
import { mergeAnswers, verdictOf } from "../../src/answer/shardMerge";
import type { EnginePort, Prompt } from "../../src/protocol/engine";
import { failure } from "../../src/protocol/errors";
import { isFound } from "../../src/protocol/qa";
import type { Citation } from "../../src/protocol/qa";
import { contextOf, MemoryRepository } from "../context/folders";
import { nanoFolder, newEngine } from "../engine/engineUnderTest";
import { isRunning, watchedEngine } from "../engine/hostProcess";
import { greedy, loadRequest } from "../engine/prompts";
import { askTold } from "./askTold";
import type { Listening, Told } from "./askTold";

const engine = newEngine();
const question = "Where is `roundToCents` used?";

const subjects = ["orders", "ledger", "taxes", "refunds", "wages", "stock", "calendar", "parcels"];
const callers = new Set(["ledger", "taxes", "refunds", "wages"]);

/** Eight modules, each a shard of its own; the first defines the name, four call it, three know nothing of it. */
function modules(): Record<string, string> {
  return Object.fromEntries(
    subjects.map((name, index) => {
      const title = name.charAt(0).toUpperCase() + name.slice(1);
      const call = callers.has(name) ? "roundToCents(total * rate)" : "total * rate";
      const own =
        index === 0
          ? "/** Rounds an amount of money to whole cents. */\nexport function roundToCents(amount: number): number {\n  return Math.round(amount * 100) / 100;\n}\n"
          : "";
      const text = `// Everything about ${name}.
${callers.has(name) ? 'import { roundToCents } from "./orders";\n' : ""}
export interface ${title}Entry {
  readonly id: string;
  readonly ${name}Count: number;
}

${own}
/** How much the ${name} come to. */
export function ${name}Total(entries: readonly ${title}Entry[], rate: number): number {
  const total = entries.reduce((sum, entry) => sum + entry.${name}Count, 0);
  return ${call};
}

/** The entries of the ${name} that are not empty. */
export function filled${title}(entries: readonly ${title}Entry[]): ${title}Entry[] {
  return entries.filter((entry) => entry.${name}Count > 0);
}
`;
      return [`src/${name}.ts`, text];
    }),
  );
}

/** Fits one of the modules, not two. */
const shardTokens = 270;

async function scan(
  on: EnginePort,
  options: Partial<AskInput> & Listening = {},
  files: Record<string, string> = modules(),
): Promise<Told> {
  const { signal, onEvent, ...input } = options;
  return askTold(
    { text: question, effort: "high", exhaustive: true, shardTokens, ...input },
    { context: contextOf(new MemoryRepository(files)), engine: on, load: loadRequest(nanoFolder) },
    { onEvent, signal },
  );
}

const pathOf = ({ files }: ShardOutcome): string => files.map(({ path }) => path).join(" ");

test("eight shards in one batch say what each says alone, and the merged answer cites what they found, each place once", async () => {
  const outcome = await scan(engine);
  assert.equal(outcome.error, null);
  assert.equal(outcome.done, "complete");
  assert.deepEqual(outcome.shards.map(pathOf).sort(), subjects.map((name) => `src/${name}.ts`).sort());
  const files = modules();
  for (const shard of outcome.shards) {
    const path = pathOf(shard);
    let answer = "";
    const file = { path, text: (files[path] ?? "").trimEnd() };
    const segments = [{ kind: "base" as const, note: "", file }];
    await generateAnswer(
      {
        prompt: { repository: "memory", segments, history: [], question, start: "open" },
        repository: "",
        maxTokens: 1_024,
        sampler: greedy,
        promptLookup: false,
        effort: "high",
      },
      engine,
      {
        read: () => undefined,
        phase: () => undefined,
        reading: () => undefined,
        reasoning: () => undefined,
        answer: (text) => (answer += text),
      },
    );
    assert.equal(shard.answer, answer, path);
    const sources = { repository: "memory", packed: [file], known: Object.keys(files) };
    assert.deepEqual(shard.citations, checkCitations(answer, sources), path);
  }
  const found = outcome.shards.filter(({ verdict }) => verdict === "found");
  assert.ok(found.length >= 4, `only ${found.map(pathOf).join(", ")}`);
  assert.ok(outcome.shards.some(({ verdict }) => verdict === "nothing"));
  const place = ({ path, startLine }: Citation): string => `${path}:${String(startLine)}`;
  const blocks = (citations: readonly Citation[]): string[] =>
    citations.filter((citation) => citation.kind === "block" && isFound(citation)).map(place);
  const merged = blocks(outcome.citations);
  assert.deepEqual(merged, [...new Set(merged)], "each place once");
  assert.deepEqual(
    [...merged].sort(),
    [...new Set(outcome.shards.flatMap(({ citations }) => blocks(citations)))].sort(),
  );
  assert.ok(outcome.citations.every(isFound));
  assert.equal(outcome.refusal, null, "what one shard could not find, another has");
});

test("progress is told shard by shard, in tokens of all of them; a second question reads only itself", async () => {
  const first = await scan(engine);
  const told = first.events.flatMap((event) => (event.type === "shards" ? [event.shards] : []));
  assert.deepEqual(
    [...new Set(told.map((shards) => shards.first))].sort((a, b) => a - b),
    [1, 2, 3, 4, 5, 6, 7, 8],
  );
  const found = first.shards.filter(({ verdict }) => verdict === "found").length;
  assert.deepEqual(told.at(-1), { total: 8, first: 1, last: 8, asked: 8, found });
  const readings = first.events.flatMap((event) => (event.type === "reading" ? [event] : []));
  assert.ok(readings.every(({ position, promptTokens }) => position <= promptTokens));
  assert.deepEqual(
    readings.map(({ position }) => position),
    readings.map(({ position }) => position).sort((a, b) => a - b),
  );
  const second = await scan(engine, { text: "Where is `filledStock` used?" });
  for (const { promptTokens, reusedTokens } of second.shards) {
    assert.ok(promptTokens - reusedTokens < 128, `${String(promptTokens - reusedTokens)} tokens were read again`);
  }
});

test("a name that no shard has is refused once, and looked for in all files", async () => {
  const outcome = await scan(engine, { text: "Where is `frobnicate` used?" });
  assert.ok(outcome.shards.every(({ verdict }) => verdict === "nothing"));
  assert.equal(outcome.refusal?.name, "frobnicate");
  assert.deepEqual(outcome.refusal.places, []);
  assert.match(outcome.answer, /could not find/);
});

/** Fails as `fails` says when a prompt holds the text. */
function failing(text: string, fails: { readonly read: boolean }): EnginePort {
  const poisoned = new Set<number>();
  const holds = (prompt: Prompt): boolean => JSON.stringify(prompt).includes(text);
  return new Proxy(engine, {
    get(target, name) {
      if (name === "sync") {
        const sync: EnginePort["sync"] = async (prompt, options) => {
          if (holds(prompt) && fails.read) throw failure("internal", "shard");
          if (holds(prompt)) poisoned.add(options?.session ?? 0);
          else poisoned.delete(options?.session ?? 0);
          return target.sync(prompt, options);
        };
        return sync;
      }
      if (name === "generateTogether") {
        const generate: EnginePort["generateTogether"] = async (members, options) => {
          if (members.some(({ session }) => poisoned.has(session))) throw failure("internal", "logits");
          return target.generateTogether(members, options);
        };
        return generate;
      }
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

for (const [when, read] of [
  ["while it is read", true],
  ["while all of its batch are answered", false],
] as const) {
  test(`a shard that fails ${when} is told, and costs the others nothing`, async () => {
    const whole = await scan(engine);
    const outcome = await scan(failing("Everything about wages", { read }));
    assert.equal(outcome.done, "complete");
    const failed = outcome.shards.filter(({ verdict }) => verdict === "failed");
    assert.deepEqual(failed.map(pathOf), ["src/wages.ts"]);
    assert.equal(failed[0]?.error?.kind, "internal");
    const others = (one: Told): unknown =>
      one.shards
        .filter((shard) => pathOf(shard) !== "src/wages.ts")
        .map(({ answer, citations }) => ({ answer, citations }));
    assert.deepEqual(others(outcome), others(whole));
  });
}

test("when every shard fails, so does the question", async () => {
  const outcome = await scan(failing("Everything about", { read: true }));
  assert.equal(outcome.error?.kind, "internal");
  assert.equal(outcome.done, null);
});

test("stopped in the middle of a batch: it ends as stopped, at once, and the next question works", async (t) => {
  const stop = new AbortController();
  let stoppedAt = 0;
  const outcome = await scan(engine, {
    text: "Where is `taxesTotal` defined?",
    signal: stop.signal,
    onEvent: (event) => {
      if (event.type !== "phase" || event.phase !== "answering") return;
      setTimeout(() => {
        stoppedAt = performance.now();
        stop.abort();
      }, 20);
    },
  });
  const tookMs = performance.now() - stoppedAt;
  assert.equal(outcome.done, "stopped");
  t.diagnostic(`stopped after ${tookMs.toFixed(0)} ms`);
  assert.ok(tookMs < 1_000, `${String(tookMs)} ms`);
  assert.equal((await scan(engine)).done, "complete");
});

test("an engine that dies in the middle of a batch fails this question, not the next", async () => {
  const { engine: mortal, pid } = watchedEngine();
  const outcome = await scan(mortal, {
    onEvent: (event) => {
      if (event.type === "phase" && event.phase === "answering") {
        setTimeout(() => {
          if (isRunning(pid())) process.kill(pid(), "SIGKILL");
        }, 20);
      }
    },
  });
  assert.equal(outcome.error?.kind, "engine-died");
  assert.equal((await scan(mortal)).done, "complete");
});

test("a file larger than a shard: what a part of it says points into the file", async () => {
  const { "src/orders.ts": orders = "", ...others } = modules();
  const filler = Object.values(others).join("\n").replaceAll("roundToCents(total * rate)", "total * rate");
  const large = `${filler.replaceAll(/^import.*\n/gm, "")}\n${orders}`;
  const outcome = await scan(engine, { text: "Where is `roundToCents` defined?" }, { "src/all.ts": large });
  assert.ok(outcome.shards.length > 3);
  const block = outcome.citations.find((citation) => citation.kind === "block" && isFound(citation));
  assert.ok(block !== undefined, outcome.answer);
  assert.equal(block.path, "src/all.ts");
  assert.match(large.split("\n")[block.startLine - 1] ?? "", /function roundToCents/);
});

function shardAnswer(path: string, answer: string, packed: string): { answer: string; citations: readonly Citation[] } {
  const sources = { repository: "r", packed: [{ path, text: packed }], known: [path] };
  return { answer, citations: checkCitations(answer, sources) };
}

test("merging: the same place once, by path and line, refusals and quotes that are nowhere left out", () => {
  const text = "const first = 1;\nconst second = 2;\nconst third = 3;\n";
  const quote = (line: string): string => `\`\`\`ts\n${line}\n\`\`\``;
  const b = shardAnswer(
    "src/b.ts",
    `In \`src/b.ts\`:\n\n${quote("const second = 2;")}\n\n${quote("const made = up;")}`,
    text,
  );
  const again = shardAnswer(
    "src/b.ts",
    `Once more:\n\n${quote("const second = 2;")}\n\nand\n\n${quote("const first = 1;")}`,
    text,
  );
  const a = shardAnswer("src/a.ts", "It is set in `src/a.ts:3`.\n\nNothing else does.", text);
  const none = shardAnswer("src/c.ts", "I could not find `second` in this repository.", text);
  assert.deepEqual([b, again, a, none].map(verdictOf), ["found", "found", "found", "nothing"]);
  const merged = mergeAnswers([b, again, none, a]);
  assert.deepEqual(merged.match(/^`src\/.*`$/gm), ["`src/a.ts:3`", "`src/b.ts:1`", "`src/b.ts:2`"]);
  assert.doesNotMatch(merged, /made|could not find|Once more|Nothing else/);
  assert.equal(mergeAnswers([none, none]), none.answer);
  const words = shardAnswer("src/d.ts", "It rounds.", text);
  assert.equal(verdictOf(words), "unproven");
  assert.equal(mergeAnswers([none, words, words]), "It rounds.");
  assert.equal(mergeAnswers([]), "");
});

test("merging: what one part says of the whole is left out once another part has quotes, and stays where none has", () => {
  const text = "export function round() {}\nexport const a = round();\n";
  const fence = (line: string): string => `\`\`\`ts\n${line}\n\`\`\``;
  const defining = shardAnswer(
    "src/a.ts",
    `\`round\` is defined in \`src/a.ts\` and I found no use of it:\n\n${fence("export function round() {}")}`,
    text,
  );
  const using = shardAnswer(
    "src/b.ts",
    `\`round\` is used in one place. It only calls \`round\`. It accepts only file paths. It sets \`a\`:\n\n\`src/b.ts\`:\n\n${fence("export const a = round();")}`,
    text,
  );
  const naming = shardAnswer("src/c.ts", "There is no other use of it in `src/c.ts:2`.", text);
  const merged = mergeAnswers([defining, using, naming]);
  assert.equal(
    merged,
    `\`src/a.ts:1\`\n\n\`round\` is defined in \`src/a.ts\`:\n\n${fence("export function round() {}")}\n\n` +
      `\`src/b.ts:2\`\n\nIt only calls \`round\`. It accepts only file paths. It sets \`a\`:\n\n\`src/b.ts\`:\n\n${fence("export const a = round();")}`,
  );
  assert.match(mergeAnswers([defining]), /and I found no use of it:/);
  assert.match(mergeAnswers([naming]), /There is no other use of it/);
  assert.match(
    mergeAnswers([using, naming]),
    /is used in one place/,
    "a path without a quote is no finding to set against it",
  );
});

test("property: merging keeps every quote that was found, whatever is said around it", () => {
  const lines = Array.from({ length: 12 }, (_, index) => `export const value${String(index)} = ${String(index)};`);
  const sentence = fc.constantFrom(
    "I found no use of it.",
    "It is used in one place:",
    "It is set here and nowhere else.",
    "This is the only call:",
    "no use and no use and no use",
    "It is not used anywhere in the repository.",
    "It adds; and",
    "`no other use`",
    "...",
  );
  const part = fc.tuple(fc.array(sentence, { maxLength: 3 }), fc.nat(lines.length - 1));
  const answers = fc.array(fc.array(part, { maxLength: 3 }), { maxLength: 5 });
  fc.assert(
    fc.property(answers, (all) => {
      const files = all.map((_, index) => ({ path: `src/f${String(index)}.ts`, text: lines.join("\n") }));
      const shards = all.map((parts, index) => {
        const { path, text } = files[index] as (typeof files)[number];
        const answer = parts.map(([words, line]) => `${words.join(" ")}\n\n\`\`\`\n${lines[line] ?? ""}\n\`\`\``);
        return shardAnswer(path, answer.join("\n\n"), text);
      });
      const merged = mergeAnswers(shards);
      const known = files.map(({ path }) => path);
      const placesOf = (citations: readonly Citation[]): string[] =>
        citations.flatMap(({ kind, path, startLine }) => (kind === "block" ? [`${path}:${String(startLine)}`] : []));
      const expected = new Set(shards.flatMap(({ citations }) => placesOf(citations)));
      const checked = checkCitations(merged, { repository: "r", packed: files, known });
      assert.deepEqual(placesOf(checked).sort(), [...expected].sort());
      assert.ok(checked.every(({ status }) => status === "verified"));
      assert.equal(mergeAnswers(shards), merged);
    }),
  );
});
