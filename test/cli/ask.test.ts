// `ask` and `pack` as programs: their JSON is what the documents say, their text steers no terminal, their failures are sentences.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import * as path from "node:path";
import { test } from "node:test";
import { AskScreen } from "../../src/cli/askScreen";
import type { AskOutcome } from "../../src/answer/ask";
import { printable } from "../../src/cli/pack";
import { folderWith } from "../context/folders";
import { ringside } from "./installation";
import type { Ended } from "./installation";

const files = {
  "src/gates.ts":
    "/** Opens the gate. */\nexport function openTheGate(key: string): boolean {\n  return key === 'k';\n}\n",
  "src/use.ts": "import { openTheGate } from './gates';\n\nopenTheGate('k');\n",
  "package-lock.json": "{}",
};

test("pack accounts for every file, and gives the same bytes each time", async (t) => {
  const folder = folderWith(t, files);
  const run = (): Promise<Ended> => ringside("pack", "--repo", folder, "--budget", "2000", "--json");
  const { exitCode, out, err } = await run();
  assert.equal(exitCode, 0, err);
  assert.equal(err, "");
  const plan = JSON.parse(out) as {
    budgetTokens: number;
    files: { path: string; tokens: number; mode: string; reason: string }[];
    segments: { path: string; tokens: number; sha256: string }[];
  };
  assert.equal(plan.budgetTokens, 2000);
  assert.deepEqual(
    plan.files.map(({ path: file, mode, reason }) => [file, mode, reason]),
    [
      ["src/gates.ts", "full", "base"],
      ["src/use.ts", "full", "base"],
      ["package-lock.json", "dropped", "lock-file"],
    ],
  );
  const packed = createHash("sha256").update(files["src/gates.ts"].trimEnd()).digest("hex");
  assert.equal(plan.segments[0]?.sha256, packed);
  assert.ok(plan.segments.every(({ tokens }) => tokens > 0));
  assert.equal((await run()).out, out);
  const { out: text } = await ringside("pack", "--repo", folder, "--budget", "2000");
  assert.match(text, /^2 of 2 files, \d+ of 2000 tokens\n/);
  assert.match(text, /- lock-file +package-lock\.json/);
});

test("ask gives one JSON value, a list for a file of questions, and text for people", async (t) => {
  const folder = folderWith(t, {
    ...files,
    "questions.txt": "Where is `openTheGate` defined?\n\nWhat does `openTheGate` do?\n",
  });
  const one = await ringside("ask", "--repo", folder, "--json", "Where is `openTheGate` defined?");
  assert.equal(one.exitCode, 0, one.err);
  assert.equal(one.err, "");
  const value = JSON.parse(one.out) as Record<string, unknown>;
  for (const key of ["answer", "reasoning", "citations", "plan", "stats"]) assert.ok(key in value, key);
  const [citation] = value["citations"] as Record<string, unknown>[];
  for (const key of ["path", "startLine", "endLine", "status", "namedPath", "candidates", "stale"]) {
    assert.ok(citation && key in citation, key);
  }
  const list = await ringside("ask", "--repo", folder, "--json", "--questions", path.join(folder, "questions.txt"));
  assert.equal((JSON.parse(list.out) as unknown[]).length, 2);
  const text = await ringside("ask", "--repo", folder, "Where is `openTheGate` defined?");
  assert.match(text.out, /(verified|relocated) +src\/gates\.ts:\d/);
  assert.equal(text.err, "");
});

test("ask --scan tells of each shard, and a second command reads none of them again", async (t) => {
  const others = Array.from({ length: 3 }, (_, index) => {
    const lines = Array.from(
      { length: 40 },
      (__, line) => `export const gate_${String(line)} = "${String(line * index)}";`,
    );
    return [`src/list${String(index)}.ts`, `${lines.join("\n")}\n`] as const;
  });
  const folder = folderWith(t, { ...files, ...Object.fromEntries(others) });
  const scan = async (): Promise<{
    shards: { verdict: string; files: { path: string }[]; reusedTokens: number }[];
  }> => {
    const options = ["--scan", "--shard-tokens", "700", "--json"];
    const { exitCode, out, err } = await ringside("ask", "--repo", folder, ...options, "Where is `openTheGate` used?");
    assert.equal(exitCode, 0, err);
    return JSON.parse(out) as Awaited<ReturnType<typeof scan>>;
  };
  const first = await scan();
  assert.ok(first.shards.length >= 3);
  assert.deepEqual(first.shards.flatMap((shard) => shard.files.map((file) => file.path)).sort(), [
    "src/gates.ts",
    "src/list0.ts",
    "src/list1.ts",
    "src/list2.ts",
    "src/use.ts",
  ]);
  assert.ok(first.shards.some(({ verdict }) => verdict === "found"));
  for (const { reusedTokens } of (await scan()).shards) assert.ok(reusedTokens > 64);
});

test("the next command need not read the repository again, unless told to; what is kept is listed and deleted", async (t) => {
  const long = Array.from({ length: 60 }, (_, line) => `export const gate_${String(line)} = "${String(line * 37)}";`);
  const folder = folderWith(t, { ...files, "src/long.ts": `${long.join("\n")}\n` });
  const ask = async (...more: readonly string[]): Promise<{ answer: string; reused: number }> => {
    const { exitCode, out, err } = await ringside(
      "ask",
      "--repo",
      folder,
      "--json",
      ...more,
      "Where is `openTheGate`?",
    );
    assert.equal(exitCode, 0, err);
    const { answer, stats } = JSON.parse(out) as { answer: string; stats: { reusedTokens: number } };
    return { answer, reused: stats.reusedTokens };
  };
  const first = await ask();
  assert.equal(first.reused, 0);
  const second = await ask();
  assert.ok(second.reused > 500, String(second.reused));
  assert.equal(second.answer, first.answer);
  assert.deepEqual(await ask("--no-snapshots"), first);

  const list = async (): Promise<{ repository: string; snapshots: number; bytes: number }[]> =>
    JSON.parse((await ringside("snapshots", "list", "--json")).out) as Awaited<ReturnType<typeof list>>;
  const kept = (await list()).find(({ repository }) => repository === folder);
  assert.ok(kept !== undefined && kept.snapshots > 0 && kept.bytes > 0);
  assert.ok((await ringside("snapshots", "list")).out.includes(folder));
  assert.match((await ringside("snapshots", "clear", "--repo", folder)).out, /^[\d.,]+ MB deleted\.\n$/);
  assert.ok((await list()).every(({ repository }) => repository !== folder));
  assert.deepEqual(await ask(), first, "what was deleted is read again");
  assert.equal((await ringside("snapshots", "drop")).exitCode, 2);
});

test("a job that fails is exit code 1 and one sentence; wrong usage is 2", async (t) => {
  const folder = folderWith(t, files);
  const cases = [
    ["ask", "--repo", path.join(folder, "gone"), "Where?"],
    ["ask", "--repo", folder, "--model", path.join(folder, "none"), "Where?"],
    ["ask", "--repo", folder, "--questions", path.join(folder, "none.txt")],
    ["ask", "--repo", folder, " "],
    ["pack", "--repo", path.join(folder, "gone")],
  ];
  for (const arguments_ of cases) {
    const { exitCode, out, err } = await ringside(...arguments_);
    assert.equal(exitCode, 1, arguments_.join(" "));
    assert.equal(out, "");
    assert.match(err, /^ringside: [A-Z/][^\n]*\.\n$/);
  }
  assert.equal((await ringside("ask", "--repo", folder)).exitCode, 2);
  assert.equal((await ringside("ask", "--repo", folder, "--questions", "f", "q")).exitCode, 2);
  assert.equal((await ringside("pack", "--repo", folder, "--budget", "none")).exitCode, 2);
  for (const options of [
    ["--shard-tokens", "500"],
    ["--scan", "--pin", "a.ts"],
    ["--scan", "--shard-tokens", "9"],
  ]) {
    assert.equal((await ringside("ask", "--repo", folder, ...options, "q")).exitCode, 2, options.join(" "));
  }
});

test("text of the model and of the repository cannot steer the terminal", () => {
  assert.equal(printable("a\u001b[2Jb\u202e\tc\n\u0007"), "a\\u{1b}[2Jb\\u{202e}\tc\n\\u{7}");
  let out = "";
  const stream = { isTTY: true, write: (text: string) => (out += text) };
  const screen = new AskScreen(stream, { isTTY: false, write: () => "" }, false);
  screen.show({ type: "reasoning", text: "\u001b]0;title\u0007", tokens: 1 });
  screen.show({ type: "answer", text: "in `a\u001b[31m.ts`" });
  const outcome: AskOutcome = {
    answer: "",
    reasoning: "",
    citations: [
      {
        id: 1,
        kind: "path",
        path: "b\u001b[31m.ts",
        startLine: 3,
        endLine: 5,
        status: "relocated",
        namedPath: "a.ts",
        candidates: 2,
        stale: true,
        offset: 0,
        length: 0,
      },
      {
        id: 2,
        kind: "block",
        path: "d.ts",
        startLine: 0,
        endLine: 0,
        status: "earlier",
        namedPath: "",
        candidates: 0,
        stale: false,
        offset: 0,
        length: 0,
      },
    ],
    refusal: { name: "x", places: [{ path: "c.ts", line: 4, wasRead: false }] },
    scan: null,
    plan: null,
    shards: [],
    leftOut: [],
    stats: null,
    done: "complete",
    error: null,
  };
  screen.end(outcome);
  const sequences = out
    .split("\u001b")
    .slice(1)
    .map((rest) => rest.slice(0, rest.indexOf("m") + 1));
  assert.deepEqual(sequences, ["[2m", "[22m", "[2m", "[22m"]);
  assert.match(
    out,
    /relocated +b\\u\{1b\}\[31m\.ts:3-5 \(the answer says a\.ts; one of 2 places; changed since it was read\)/,
  );
  assert.match(out, /earlier +d\.ts \(this stood in an earlier copy of the file; it has changed since\)/);
  assert.match(out, /"x" stands in c\.ts:4, which was not read\./);
});
