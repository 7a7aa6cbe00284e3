// A command that is killed while it writes what it has read: the next one finds what was whole, reads the rest again, and answers
// the same.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { folderWith } from "../context/folders";
import { ringside, snapshotFolder, startRingside } from "./installation";

const kept = (): readonly string[] => {
  try {
    return readdirSync(snapshotFolder);
  } catch {
    return []; // Nothing was kept yet.
  }
};

interface Answer {
  readonly answer: string;
  readonly stats: { readonly promptTokens: number; readonly reusedTokens: number };
}

test("killed while it writes, again and again: what was whole is used, nothing half written is, and the answer is the same", async (t) => {
  const values = (file: number): string =>
    Array.from(
      { length: 60 },
      (_, line) => `export const value_${String(file)}_${String(line)} = ${String(line * 7)};\n`,
    ).join("");
  const folder = folderWith(
    t,
    Object.fromEntries(Array.from({ length: 8 }, (_, file) => [`src/values${String(file)}.ts`, values(file)])),
  );
  const question = ["ask", "--repo", folder, "--json", "--max-tokens", "8", "Where is `value_3_5` defined?"] as const;
  const answerOf = async (...more: readonly string[]): Promise<Answer> => {
    const { exitCode, out, err } = await ringside(...question, ...more);
    assert.equal(exitCode, 0, err);
    return JSON.parse(out) as Answer;
  };
  const fresh = await answerOf("--no-snapshots");
  assert.deepEqual(kept(), []);

  let kills = 0;
  for (let round = 0; round < 4; round += 1) {
    const child = startRingside(...question);
    let isOver = false;
    const ended = new Promise((resolve) => child.once("close", resolve)).then(() => (isOver = true));
    const hasEnded = (): boolean => isOver;
    const before = new Set(kept());
    const writing = (): string | undefined => kept().find((name) => name.includes(".tmp.") && !before.has(name));
    let found = writing();
    for (; found === undefined && !hasEnded(); found = writing()) await new Promise((resolve) => setImmediate(resolve));
    const writer = Number(/\.tmp\.(\d+)\./.exec(found ?? "")?.[1]);
    // The command first: it would start its engine again.
    child.kill("SIGKILL");
    if (writer > 0) process.kill(writer, "SIGKILL");
    if (writer > 0) kills += 1;
    await ended;
  }
  assert.ok(kills > 0, "it was never caught writing");

  const after = await answerOf();
  assert.equal(after.answer, fresh.answer);
  const again = await answerOf();
  assert.equal(again.answer, fresh.answer);
  assert.ok(again.stats.promptTokens - again.stats.reusedTokens < 1_024, JSON.stringify(again.stats));
  t.diagnostic(
    `${String(kills)} kills; then ${String(after.stats.reusedTokens)} tokens restored, then ${String(again.stats.reusedTokens)}`,
  );
  assert.ok(
    kept().length > 0 && kept().every((name) => /^[0-9a-f]{64}\.(?:snapshot|layout)$/.test(name)),
    kept().join(),
  );
});
