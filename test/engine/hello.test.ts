// A host that starts but never answers is ended after ten seconds, and its client is told so. In a file of its own, to wait beside the others.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import { failureKind, newEngine, scratchFolder, tinyModel } from "./engineUnderTest";
import { isRunning } from "./hostProcess";
import { loadRequest } from "./prompts";

test("a silent host is ended after ten seconds", async () => {
  const script = path.join(scratchFolder("silent"), "host.js");
  writeFileSync(script, "setInterval(() => undefined, 1_000);");
  const lines: string[] = [];
  const engine = newEngine({ hostScript: script, log: (line) => lines.push(line) });
  const startedMs = performance.now();
  assert.equal(await failureKind(engine.load(loadRequest(tinyModel()))), "engine-died");
  const waitedMs = performance.now() - startedMs;
  assert.ok(waitedMs > 9_500 && waitedMs < 60_000, `${String(waitedMs)} ms`);
  assert.equal(engine.status().error?.actual, "no answer within 10 s");
  const pid = Number(/process (\d+) started/.exec(lines[0] ?? "")?.[1]);
  assert.ok(pid > 0 && !isRunning(pid));
});
