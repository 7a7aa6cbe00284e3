// The GPU's tests without a GPU: the list of programs is complete, and its runner calls nothing passed that did not pass.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { architectureOf } from "../../scripts/native-cuda.mjs";
import { at } from "../../scripts/paths.mjs";
import { parseArchitectures } from "../../scripts/test-gpu.mjs";

const runner = at("test", "cuda", "run.sh");
const names = spawnSync("sh", [runner, "--list"], { encoding: "utf8" }).stdout.trim().split("\n");

/** Runs the list over programs that are shell scripts: `bodies` for some, the others pass. */
function runList(t: TestContext, bodies: Readonly<Record<string, string>>): { code: number | null; out: string } {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-gpu-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  for (const name of names) {
    const body = bodies[name] ?? 'echo "ok   all"; echo "3 passed, 0 failed"';
    fs.writeFileSync(path.join(folder, `cuda_${name}`), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  }
  const env = { ...process.env, PROGRAMS: folder };
  const ended = spawnSync("sh", [runner, "--no-sanitizer"], { env, encoding: "utf8" });
  return { code: ended.status, out: ended.stdout };
}

test("the list of the GPU's tests names each of them, and CMake builds each", () => {
  const files = fs.readdirSync(at("test", "cuda")).filter((file) => /_test\.(cu|cc)$/.test(file));
  assert.deepEqual([...names].sort(), files.map((file) => path.parse(file).name).sort());
  const cmake = fs.readFileSync(at("native", "cmake", "cuda.cmake"), "utf8");
  for (const name of names) assert.match(cmake, new RegExp(`\\b${name}\\b`));
});

test("programs that pass make a table and exit code 0", (t) => {
  const { code, out } = runList(t, {});
  assert.equal(code, 0, out);
  for (const name of names) assert.match(out, new RegExp(`^${name} +plain +3 +0 .* ok$`, "m"));
  assert.match(out, /left out, as asked/);
});

test("a program that fails, dies or runs nothing fails the whole, with what it said", (t) => {
  const { code, out } = runList(t, {
    load_test: 'echo "  load_test.cu:1: wrong"; echo "FAIL it"; echo "2 passed, 1 failed"; exit 1',
    step_test: "kill -9 $$",
    nano_test: "echo nothing",
  });
  assert.equal(code, 1);
  assert.match(out, /^load_test +plain +2 +1 .*exit code 1$/m);
  assert.match(out, /^== load_test\.plain\n {2}load_test\.cu:1: wrong$/m);
  assert.doesNotMatch(out, /^step_test .*ok$/m);
  assert.match(out, /^nano_test .*no test ran$/m);
});

test("a card's architecture is the one with its own instructions, and too old cards have none", () => {
  assert.deepEqual(["8.0", "8.6", "8.9", "9.0", "12.0"].map(architectureOf), [
    "80-real",
    "86-real",
    "89-real",
    "90a-real",
    "120-real",
  ]);
  for (const capability of ["7.5", "6.1", "", "[N/A]"]) assert.equal(architectureOf(capability), undefined);
});

test("architectures are read from a list, and what is none is refused by name", () => {
  assert.deepEqual(parseArchitectures("90a,80"), ["90a-real", "80-real"]);
  assert.deepEqual(parseArchitectures("all"), []);
  assert.throws(() => parseArchitectures("90a,sm_80"), /"sm_80"/);
});
