// One question after another with the real engine and the embedded model: its events, its checks, and every way it can end.
import assert from "node:assert/strict";
import { cpSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import type { AskInput, AskOutcome } from "../../src/answer/ask";
import { DiskRepository } from "../../src/cli/diskRepository";
import type { EnginePort } from "../../src/protocol/engine";
import { isFound } from "../../src/protocol/qa";
import { contextOf, folderWith, put } from "../context/folders";
import { nanoFolder, newEngine, root } from "../engine/engineUnderTest";
import { watchedEngine } from "../engine/hostProcess";
import { loadRequest } from "../engine/prompts";
import { askTold } from "./askTold";
import type { Listening, Told } from "./askTold";

const engine = newEngine();

function asker(folder: string, on: EnginePort = engine, model = nanoFolder) {
  const context = contextOf(new DiskRepository(folder));
  return async (text: string, options: Partial<AskInput> & Listening = {}): Promise<Told> => {
    const { onEvent, signal, ...input } = options;
    const dependencies = { context, engine: on, load: loadRequest(model) };
    return askTold({ effort: "high", ...input, text }, dependencies, { onEvent, signal });
  };
}

/** A small real package, as files that a test may change. */
function packageFolder(t: Parameters<typeof folderWith>[0]): string {
  const folder = folderWith(t, {});
  for (const name of ["index.js", "package.json", "lib"]) {
    cpSync(path.join(root, "node_modules", "cross-spawn", name), path.join(folder, name), { recursive: true });
  }
  return folder;
}

function quotedLines(folder: string, { path: file, startLine, endLine }: AskOutcome["citations"][number]): string[] {
  return readFileSync(path.join(folder, file), "utf8")
    .split("\n")
    .slice(startLine - 1, endLine);
}

test("a question is answered with checked quotes; the second one reads less than a chunk of the repository again", async (t) => {
  const folder = packageFolder(t);
  const question = asker(folder);
  const first = await question("Where is `escapeArgument` defined?");
  assert.equal(first.error, null);
  assert.equal(first.done, "complete");
  const phases = first.events.flatMap((event) => (event.type === "phase" ? [event.phase] : []));
  assert.deepEqual(phases, ["scanning", "loading", "planning", "reading", "reasoning", "answering", "checking"]);
  const told = (type: "reasoning" | "answer"): string =>
    first.events.map((event) => (event.type === type ? event.text : "")).join("");
  assert.equal(told("answer"), first.answer);
  assert.equal(told("reasoning"), first.reasoning);
  assert.doesNotMatch(first.answer + first.reasoning, /<\/?think>|<\|role_end\|>/);
  const block = first.citations.find(({ kind }) => kind === "block");
  assert.ok(block, first.answer);
  assert.equal(block.path, "lib/util/escape.js");
  assert.match(quotedLines(folder, block).join("\n"), /function escapeArgument\(/);
  for (const line of quotedLines(folder, block)) assert.ok(first.answer.includes(line.trim()));

  const second = await question("What does `readShebang` do?");
  assert.ok(first.plan && second.plan && second.stats && first.stats);
  assert.equal(second.plan.prefixKey, first.plan.prefixKey);
  assert.ok(second.stats.reusedTokens >= 64 * Math.floor(second.stats.reusedTokens / 64));
  const readAgain = second.stats.promptTokens - second.stats.reusedTokens;
  assert.ok(readAgain < 64 + 64, `${String(readAgain)} tokens were read again`);
});

test("effort off answers at once from the same base; low effort ends with an answer too", async (t) => {
  const question = asker(packageFolder(t));
  await question("Where is `resolveCommand` defined?");
  const off = await question("Where is `escapeArgument` defined?", { effort: "off" });
  assert.equal(off.error, null);
  assert.equal(off.reasoning, "");
  assert.ok(off.stats && off.stats.promptTokens - off.stats.reusedTokens < 128);
  assert.ok(
    off.citations.some((citation) => isFound(citation) && citation.path === "lib/util/escape.js"),
    off.answer,
  );
  const low = await question("Where is `escapeArgument` defined?", { effort: "low" });
  assert.ok(low.answer !== "" && low.done === "complete");
});

test("a name that is nowhere is refused and confirmed; one that was not read is pointed to, and read when pinned", async (t) => {
  const folder = packageFolder(t);
  put(folder, "extra/gates.js", "'use strict';\n\nfunction openTheGardenGate(key) {\n    return key.turn();\n}\n");
  const question = asker(folder);
  const nowhere = await question("Where is `paintLanternGlyphs` defined?", { scope: ["lib"] });
  assert.deepEqual(nowhere.refusal, { name: "paintLanternGlyphs", places: [] }, nowhere.answer);
  const unread = await question("Where is `openTheGardenGate` defined?", { scope: ["lib"] });
  assert.deepEqual(
    unread.refusal,
    { name: "openTheGardenGate", places: [{ path: "extra/gates.js", line: 3, wasRead: false }] },
    unread.answer,
  );
  const pinned = await question("Where is `openTheGardenGate` defined?", {
    scope: ["lib"],
    pinned: ["extra/gates.js"],
  });
  assert.equal(pinned.refusal, null, pinned.answer);
  assert.ok(pinned.citations.some((citation) => citation.path === "extra/gates.js" && isFound(citation)));
});

test("a stop while reading and while answering keeps what was shown, and the next question works", async (t) => {
  const folder = packageFolder(t);
  const question = asker(folder);
  for (const at of ["reading", "answer"] as const) {
    const stop = new AbortController();
    put(folder, "lib/changed.js", `const reason = "${at}";\n`); // So that there is something to read.
    const stopped = await question("Show the code of `parseNonShell`", {
      signal: stop.signal,
      onEvent: (event) => {
        if (event.type === at) stop.abort();
      },
    });
    assert.equal(stopped.done, "stopped");
    assert.equal(stopped.answer !== "", at === "answer");
    assert.equal(
      stopped.events.some(({ type }) => type === "citations"),
      at === "answer",
    );
  }
  assert.equal((await question("Where is `parseNonShell` defined?")).done, "complete");
});

test("questions that cannot be asked", async (t) => {
  const question = asker(folderWith(t, { "a.js": "let a;\n" }));
  assert.equal((await question("  \n")).error?.kind, "question-empty");
  const long = await question("x".repeat(100_000));
  assert.deepEqual(long.error, { kind: "question-too-long", subject: "question", expected: "20000", actual: "100000" });
  assert.equal((await question("é{".repeat(9_000))).error?.kind, "context-full");
  const wordy = await question(`Where is \`a\`? ${"Please tell me. ".repeat(1_000)}`, { maxTokens: 8 });
  assert.deepEqual([wordy.error, wordy.done], [null, "token-limit"]);
});

test("a repository without text, a folder that is gone, a model that is not there", async (t) => {
  const empty = await asker(folderWith(t, { "a.png": "x" }))("Where is `a`?");
  assert.equal(empty.error?.kind, "repository-empty");
  const gone = await asker(path.join(folderWith(t, {}), "gone"))("Where is `a`?");
  assert.equal(gone.error?.kind, "repository-gone");
  const folder = folderWith(t, { "a.js": "let a;\n" });
  const unloaded = await asker(folder, newEngine(), path.join(folder, "no-model"))("Where is `a`?");
  assert.equal(unloaded.error?.kind, "file-missing");
});

test("a folder that goes away while the answer runs", async (t) => {
  const folder = packageFolder(t);
  const outcome = await asker(folder)("Where is `escapeArgument` defined?", {
    onEvent: (event) => {
      if (event.type === "phase" && event.phase === "reasoning") renameSync(folder, `${folder}-moved`);
    },
  });
  renameSync(`${folder}-moved`, folder);
  assert.equal(outcome.error?.kind, "repository-gone");
  assert.notEqual(outcome.answer, "");
});

test("a file that changes while the answer runs makes its citations stale", async (t) => {
  const folder = packageFolder(t);
  const outcome = await asker(folder)("Where is `escapeArgument` defined?", {
    onEvent: (event) => {
      if (event.type === "phase" && event.phase === "answering") {
        const file = path.join(folder, "lib/util/escape.js");
        writeFileSync(file, `// A new first line.\n${readFileSync(file, "utf8")}`);
      }
    },
  });
  const cited = outcome.citations.filter(({ path: file }) => file === "lib/util/escape.js");
  assert.ok(cited.length > 0 && cited.every(({ stale }) => stale), outcome.answer);
});

test("a second question while one runs is told so, and the first is not disturbed", async (t) => {
  const question = asker(packageFolder(t));
  let second: Promise<Told> | undefined;
  const first = await question("Where is `escapeArgument` defined?", {
    onEvent: (event) => {
      if (event.type === "phase" && event.phase === "reasoning")
        second ??= question("Where is `resolveCommand` defined?");
    },
  });
  assert.equal((await second)?.error?.kind, "engine-busy");
  assert.equal(first.done, "complete");
});

test("an engine that dies in the middle of an answer fails this question only", async (t) => {
  const { engine: mortal, pid } = watchedEngine();
  const question = asker(packageFolder(t), mortal);
  for (const at of ["reading", "answer"] as const) {
    let killed = false;
    const dead = await question("Show the code of `parseNonShell`", {
      onEvent: (event) => {
        if (event.type !== at || killed) return;
        killed = true;
        process.kill(pid(), "SIGKILL");
      },
    });
    assert.equal(dead.error?.kind, "engine-died", at);
  }
  assert.equal((await question("Where is `escapeArgument` defined?")).done, "complete");
});
