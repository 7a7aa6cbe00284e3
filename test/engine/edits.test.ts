// A repository that is edited between questions, with the real engine and the embedded model: what is read again, and that answers
// are checked against the newest text alone.
import assert from "node:assert/strict";
import { readFileSync, renameSync, rmSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import { ask } from "../../src/answer/ask";
import type { AskDependencies, AskInput, AskOutcome } from "../../src/answer/ask";
import { readAhead } from "../../src/answer/readAhead";
import type { ReadAhead } from "../../src/answer/readAhead";
import { DiskRepository } from "../../src/cli/diskRepository";
import { layoutsIn } from "../../src/engine/client";
import { isFound } from "../../src/protocol/qa";
import type { AskEvent } from "../../src/protocol/qa";
import { contextOf, folderWith, put } from "../context/folders";
import { nanoFolder, newEngine, scratchFolder } from "./engineUnderTest";
import { loadRequest } from "./prompts";

const engine = newEngine();

const nouns = ["ledger", "parcel", "harbour", "lantern", "orchard", "beacon"] as const;
const verbs = ["open", "count", "mark"] as const;
type Noun = (typeof nouns)[number];
const nameOf = (verb: string, noun: string): string => `${verb}${noun.charAt(0).toUpperCase()}${noun.slice(1)}`;

/** A file of three functions, each with a number of its own. */
function source(noun: Noun, numbers: readonly number[]): string {
  const functions = verbs.map(
    (verb, index) =>
      `/** Will ${verb} the ${noun}, at most so often. */\n` +
      `export function ${nameOf(verb, noun)}(items) {\n` +
      `  const limit = ${String(numbers[index])};\n` +
      `  return items.slice(0, limit).map((item) => item.${noun});\n}\n`,
  );
  return `'use strict';\n\n${functions.join("\n")}`;
}

function dependenciesFor(folder: string, over: Partial<AskDependencies> = {}): AskDependencies {
  const context = contextOf(new DiskRepository(folder));
  return { context, engine, load: loadRequest(nanoFolder), ...over };
}

async function answered(
  dependencies: AskDependencies,
  text: string,
  options: Partial<AskInput> = {},
  sink: (event: AskEvent) => void = () => undefined,
): Promise<AskOutcome> {
  const outcome = await ask({ effort: "off", maxTokens: 160, ...options, text }, dependencies, sink);
  assert.equal(outcome.error, null);
  return outcome;
}

/** Asserts that what is shown as found stands in the newest files, as the answer quotes it. Returns whether `line` is quoted so. */
function assertNewest(folder: string, { answer, citations }: AskOutcome, line: string): boolean {
  let isQuoted = false;
  for (const citation of citations) {
    const { path: file, startLine, endLine, kind, stale } = citation;
    assert.equal(stale, false);
    if (!isFound(citation)) continue;
    const lines = readFileSync(path.join(folder, file), "utf8").split("\n");
    if (kind === "path") continue;
    const quoted = lines.slice(startLine - 1, endLine);
    assert.ok(quoted.length > 0);
    for (const each of quoted) assert.ok(answer.includes(each.trim()), `${file}: ${each}`);
    isQuoted ||= quoted.some((each) => each.trim() === line);
  }
  return isQuoted;
}

test("50 answers after edits: every citation shown as found points at the newest text", async (t) => {
  const numbers = new Map(nouns.map((noun, index) => [noun, verbs.map((_, verb) => 100 + index * 10 + verb)]));
  const folder = folderWith(
    t,
    Object.fromEntries(nouns.map((noun) => [`lib/${noun}.js`, source(noun, numbers.get(noun) ?? [])])),
  );
  const dependencies = dependenciesFor(folder);
  await readAhead(dependencies);
  const counts = { newest: 0, earlier: 0, withDelta: 0 };
  for (let edit = 0; edit < 50; edit += 1) {
    const noun = nouns[(edit * 5) % nouns.length] as Noun;
    const verb = edit % verbs.length;
    const now = (numbers.get(noun) ?? []).map((number, index) => (index === verb ? number + 300 + edit : number));
    numbers.set(noun, now);
    put(folder, `lib/${noun}.js`, source(noun, now));
    if (edit % 10 === 9) await readAhead(dependencies, { rebase: true });
    const outcome = await answered(dependencies, `Show the code of \`${nameOf(verbs[verb] as string, noun)}\``);
    assert.ok(
      outcome.plan?.segments.some(({ text }) => text === source(noun, now).trimEnd()),
      noun,
    );
    if (outcome.plan?.prompt.some(({ kind }) => kind === "delta")) counts.withDelta += 1;
    if (assertNewest(folder, outcome, `const limit = ${String(now[verb])};`)) counts.newest += 1;
    if (outcome.citations.some(({ status }) => status === "earlier")) counts.earlier += 1;
  }
  t.diagnostic(
    `${String(counts.newest)} of 50 quote the newest text, ${String(counts.earlier)} an earlier one and are told so; ` +
      `${String(counts.withDelta)} had deltas`,
  );
  assert.ok(counts.withDelta >= 25, "deltas were there to be misread");
  assert.ok(counts.newest >= 40, String(counts.newest));
});

const readAgain = ({ sync }: ReadAhead): number => sync.promptTokens - sync.reusedTokens;

/** About 9,000 tokens in files of some 350. */
function largeRepository(): Record<string, string> {
  return Object.fromEntries(
    Array.from({ length: 24 }, (_, index) => {
      const noun = nouns[index % nouns.length] as Noun;
      return [
        `lib/${String(index).padStart(2, "0")}${noun}.js`,
        source(noun, [index, index + 1, index + 2])
          .repeat(2)
          .replaceAll(noun, `${noun}${String(index)}`),
      ];
    }),
  );
}

test("an edit costs its file, wherever it stands; a rebase what stands behind it; a restart neither", async (t) => {
  const files = largeRepository();
  const paths = Object.keys(files);
  const folder = folderWith(t, files);
  const kept = path.join(scratchFolder("edits"), "snapshots");
  const repository = "/edited";
  const open = (): AskDependencies => {
    const context = contextOf(new DiskRepository(folder), { layouts: layoutsIn(kept, repository) });
    const port = newEngine({ snapshots: { folder: kept, limitBytes: 1e9 } });
    return dependenciesFor(folder, { context, engine: port, repository });
  };
  let dependencies = open();
  const first = await readAhead(dependencies);
  assert.equal(readAgain(first), first.sync.promptTokens);
  assert.ok(readAgain(await readAhead(dependencies)) <= 64, "an unchanged repository is not read again");
  const laid = first.plan.segments;
  for (const share of [0.1, 0.5, 0.9]) {
    const place = laid[Math.floor(laid.length * share)];
    assert.ok(place !== undefined);
    put(
      folder,
      place.path,
      (files[place.path] ?? "").replace("slice(0, limit)", `slice(${String(share * 10)}, limit)`),
    );
    const edited = await readAhead(dependencies);
    t.diagnostic(
      `edit at ${String(share * 100)} %: ${String(readAgain(edited))} tokens read, the file has ${String(place.tokens)}`,
    );
    assert.ok(readAgain(edited) <= place.tokens + 200);
    assert.deepEqual(dependencies.context.stale, []);
  }
  // Some of the states are still on their way to the disk.
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await dependencies.engine.stop();
  dependencies = open();
  const restarted = await readAhead(dependencies);
  t.diagnostic(`restart after three edits: ${String(readAgain(restarted))} tokens read`);
  assert.ok(readAgain(restarted) <= 64);
  assert.equal(restarted.plan.prompt.filter(({ kind }) => kind === "delta").length, 3);

  const at = laid.findIndex(({ path: file }) => file === laid[Math.floor(laid.length * 0.1)]?.path);
  const behind = laid.slice(at).reduce((sum, { tokens }) => sum + tokens, 0);
  const rebased = await readAhead(dependencies, { rebase: true });
  t.diagnostic(`rebase: ${String(readAgain(rebased))} tokens read, ${String(behind)} stand behind the first edit`);
  assert.ok(readAgain(rebased) <= behind + 4_096);
  assert.deepEqual(
    rebased.plan.prompt.map(({ kind }) => kind),
    paths.map(() => "base"),
  );
  const middle = rebased.plan.segments[Math.floor(laid.length / 2)];
  assert.ok(middle !== undefined);
  put(folder, middle.path, (files[middle.path] ?? "").replace("slice(0, limit)", "slice(9, limit)"));
  const half = await readAhead(dependencies, { rebase: true });
  t.diagnostic(
    `rebase of an edit at 50 %: ${String(readAgain(half))} of ${String(half.sync.promptTokens)} tokens read`,
  );
  assert.ok(readAgain(half) <= half.sync.promptTokens / 2 + 4_096);
  assert.ok(half.sync.reusedTokens > 2_000, "what stands before it is not read");
  // The file that changed last stands last, and costs itself alone from now on.
  const last = half.plan.segments.at(-1);
  assert.ok(last !== undefined);
  put(folder, last.path, `${files[last.path] ?? ""}// Once more.\n`);
  const again = await readAhead(dependencies);
  assert.ok(readAgain(again) <= last.tokens + 200, String(readAgain(again)));
  assert.ok(again.plan.prompt.every(({ kind }) => kind === "base"));
});

test("deleted and renamed files, a file edited while the answer runs, and reading ahead that is stopped", async (t) => {
  const files = Object.fromEntries(nouns.map((noun) => [`lib/${noun}.js`, source(noun, [1, 2, 3])]));
  const folder = folderWith(t, files);
  const dependencies = dependenciesFor(folder);
  const stop = new AbortController();
  const stopped = readAhead(dependencies, {
    signal: stop.signal,
    onProgress: () => {
      stop.abort();
    },
  });
  await assert.rejects(stopped, /cancelled/);
  await readAhead(dependencies);
  rmSync(path.join(folder, "lib/ledger.js"));
  renameSync(path.join(folder, "lib/parcel.js"), path.join(folder, "lib/moved.js"));
  const moved = await answered(dependencies, "Show the code of `countParcel`");
  assert.ok(moved.citations.every(({ path: file }) => file !== "lib/parcel.js" && file !== "lib/ledger.js"));
  assert.ok(
    moved.citations.some(
      (citation) => citation.kind === "block" && isFound(citation) && citation.path === "lib/moved.js",
    ),
    moved.answer,
  );
  put(folder, "lib/beacon.js", source("beacon", [7, 8, 9]));
  const during = await answered(dependencies, "Show the code of `markBeacon`", {}, (event) => {
    if (event.type === "phase" && event.phase === "answering")
      put(folder, "lib/beacon.js", source("beacon", [4, 5, 6]));
  });
  const cited = during.citations.filter(({ path: file }) => file === "lib/beacon.js");
  assert.ok(cited.length > 0 && cited.every(({ stale }) => stale), JSON.stringify([during.answer, during.citations]));
});

test("the next turn of a conversation reads the short answer and the question, not the reasoning", async (t) => {
  const files = Object.fromEntries(nouns.map((noun) => [`lib/${noun}.js`, source(noun, [1, 2, 3])]));
  const dependencies = dependenciesFor(folderWith(t, files));
  const question = "Show the code of `countLantern`";
  const first = await answered(dependencies, question, { effort: "high", maxTokens: 600 });
  assert.ok(first.reasoning !== "" && first.answer !== "");
  const next = "What does `countLantern` do?";
  const second = await answered(dependencies, next, { history: [{ question, answer: first.answer }], maxTokens: 8 });
  const [answerTokens = 0, questionTokens = 0, reasoningTokens = 0] = await engine.countTokens([
    first.answer,
    next,
    first.reasoning,
  ]);
  const { promptTokens = 0, reusedTokens = 0 } = second.stats ?? {};
  t.diagnostic(
    `${String(promptTokens - reusedTokens)} tokens read: answer ${String(answerTokens)}, question ` +
      `${String(questionTokens)}; the reasoning had ${String(reasoningTokens)}`,
  );
  assert.ok(promptTokens - reusedTokens <= answerTokens + questionTokens + 64 + 32);
});
