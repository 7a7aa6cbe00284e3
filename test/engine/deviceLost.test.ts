// A GPU that stops working takes its process with it and nothing else: what ran is done again or fails with its reason, and where
// it may, the model moves to the processor. The engine is the real one; its GPU backend is the processor's with faults by plan.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import * as path from "node:path";
import { test } from "node:test";
import { deviceLossWindowMs, DeviceLosses } from "../../src/engine/deviceLosses";
import { deviceLostExitCode } from "../../src/protocol/engine";
import type { EnginePort, EngineStatus } from "../../src/protocol/engine";
import { failure } from "../../src/protocol/errors";
import { encodeFrame, FrameDecoder } from "../../src/protocol/frame";
import { askTold } from "../answer/askTold";
import type { Told } from "../answer/askTold";
import { contextOf, MemoryRepository } from "../context/folders";
import {
  addonPath,
  failureKind,
  hostScript,
  nanoFolder,
  nativeBuild,
  newEngine,
  scratchFolder,
  tinyModel,
} from "./engineUnderTest";
import { greedy, loadRequest, promptOf } from "./prompts";

const lost = failure("device-lost", "extend", "", "an injected fault").error;

/** An addon with the failing GPU backend beside it, and what makes an engine process find both it and its driver. */
function failingDevice(faults: readonly string[]): {
  readonly addonPath: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly left: () => string;
} {
  const libraries = path.join(nativeBuild, "failing_device");
  assert.ok(existsSync(libraries), `${libraries} is not there: build the native tests`);
  const folder = scratchFolder("failing-device");
  const plan = path.join(folder, "faults");
  copyFileSync(addonPath, path.join(folder, "ringside.node"));
  copyFileSync(path.join(libraries, "libringside_cuda.so"), path.join(folder, "libringside_cuda.so"));
  writeFileSync(plan, faults.map((fault) => `${fault}\n`).join(""));
  return {
    addonPath: path.join(folder, "ringside.node"),
    env: { ...process.env, RINGSIDE_FAULTS: plan, LD_LIBRARY_PATH: libraries },
    left: () => readFileSync(plan, "utf8"),
  };
}

interface Watched {
  readonly engine: EnginePort;
  readonly states: EngineStatus[];
  readonly log: string[];
  readonly left: () => string;
}

function watched(faults: readonly string[]): Watched {
  const { left, ...options } = failingDevice(faults);
  const log: string[] = [];
  const engine = newEngine({ ...options, log: (line) => log.push(line) });
  const states: EngineStatus[] = [];
  engine.onStatus((status) => states.push(status));
  return { engine, states, log, left };
}

const starts = ({ log }: Watched): number => log.filter((line) => /^engine process \d+ started$/.test(line)).length;
const prompt = promptOf(500, "Where is `fox` defined?");

async function answer(engine: EnginePort): Promise<number[]> {
  const ids: number[] = [];
  await engine.generate({ maxTokens: 24, sampler: greedy }, { onTokens: (batch) => ids.push(...batch.ids) });
  return ids;
}

/** A host spoken to without a client: what it replies, and how it ended. */
async function rawHost(
  faults: readonly string[],
  requests: readonly object[],
): Promise<{ replies: unknown[]; ended: unknown }> {
  const { addonPath: addon, env } = failingDevice(faults);
  const child = spawn(process.execPath, [hostScript(), addon], { env, stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const socket = child.stdio[3] as Socket;
  const decoder = new FrameDecoder();
  const replies: unknown[] = [];
  const waiting = [...requests];
  const send = (): void => {
    const request = waiting.shift();
    if (request !== undefined) socket.write(encodeFrame(request));
  };
  socket.on("data", (chunk: Buffer) => {
    for (const value of decoder.push(chunk)) {
      const { type } = value as { type: string };
      if (type !== "result" && type !== "failed") continue;
      replies.push(value);
      send();
    }
  });
  send();
  const ended = await new Promise<unknown>((resolve) => {
    child.once("exit", (code, signal) => {
      resolve({ code, signal });
    });
  });
  return { replies, ended };
}

test("the process tells its client, then ends with a code of its own", async () => {
  const load = loadRequest(tinyModel(), { backend: "cuda" });
  const { replies, ended } = await rawHost(
    ["extend 1"],
    [
      { type: "load", id: 1, load },
      { type: "sync", id: 2, prompt, repository: "", session: 0 },
      { type: "count", id: 3, texts: ["never answered"] },
    ],
  );
  assert.deepEqual(ended, { code: deviceLostExitCode, signal: null });
  assert.equal(replies.length, 2);
  assert.deepEqual(replies[1], { type: "failed", id: 2, error: lost });
});

test("a GPU lost once while reading: the engine starts again, and the prompt is read again, unnoticed but in the status", async () => {
  const world = watched(["extend 2"]);
  const { engine, states } = world;
  const info = await engine.load(loadRequest(tinyModel(), { backend: "auto" }));
  assert.equal(info.backend, "cuda");
  const done = await engine.sync(prompt);
  assert.equal(done.reusedTokens, 0);
  assert.equal(starts(world), 2);
  assert.equal(world.left(), "");
  assert.equal(engine.status().state, "ready");
  assert.equal(engine.status().model?.backend, "cuda");
  assert.deepEqual(engine.status().deviceLoss, { error: lost, times: 1, onProcessor: false });
  assert.ok(states.some(({ state, error }) => state === "failed" && error?.kind === "device-lost"));
  assert.ok((await answer(engine)).length > 0);
});

test("a GPU lost twice: with auto the model moves to the processor, gives the same answer, and the status says so", async () => {
  const folder = tinyModel();
  const sound = newEngine();
  await sound.load(loadRequest(folder));
  await sound.sync(prompt);
  const expected = await answer(sound);

  const world = watched(["extend 1", "save 1"]);
  const { engine } = world;
  await engine.load(loadRequest(folder, { backend: "auto" }));
  await engine.sync(prompt);
  assert.equal(starts(world), 3);
  assert.equal(engine.status().model?.backend, "cpu");
  assert.deepEqual(engine.status().deviceLoss, {
    error: { ...lost, subject: "save" },
    times: 2,
    onProcessor: true,
  });
  assert.deepEqual(await answer(engine), expected);

  // Asking for the same again changes nothing; a restart by the user tries the GPU again.
  assert.equal((await engine.load(loadRequest(folder, { backend: "auto" }))).backend, "cpu");
  await engine.stop();
  assert.equal(engine.status().deviceLoss, null);
  assert.equal((await engine.load(loadRequest(folder, { backend: "auto" }))).backend, "cuda");
});

test("a GPU lost while loading is tried again, then left", async () => {
  const world = watched(["load 1", "load 1"]);
  const info = await world.engine.load(loadRequest(tinyModel(), { backend: "auto" }));
  assert.equal(info.backend, "cpu");
  assert.equal(world.left(), "");
});

test("who asked for the GPU by name gets the error once it failed too often, and the engine works again later", async () => {
  const world = watched(["extend 1", "extend 1", "extend 1"]);
  const { engine } = world;
  await engine.load(loadRequest(tinyModel(), { backend: "cuda" }));
  assert.equal(await failureKind(engine.sync(prompt)), "device-lost");
  assert.equal(world.left(), "");
  assert.equal(engine.status().state, "failed");
  assert.equal(engine.status().error?.kind, "device-lost");
  assert.deepEqual(engine.status().deviceLoss, { error: lost, times: 3, onProcessor: false });
  assert.equal(await failureKind(engine.sync(prompt)), "resolved");
  assert.equal(engine.status().model?.backend, "cuda");
});

test("lost while generating: what was told stays told, and the next generation finds the prompt read again", async () => {
  const world = watched(["step 4", "extend 1"]);
  const { engine } = world;
  await engine.load(loadRequest(nanoFolder, { backend: "auto" }));
  await engine.sync(prompt);
  const told: number[] = [];
  const generating = engine.generate(
    { maxTokens: 200, sampler: greedy, promptLookup: false },
    { onTokens: (batch) => told.push(...batch.ids) },
  );
  assert.equal(await failureKind(generating), "device-lost");
  assert.ok(told.length > 0);
  // A new process reads the prompt, loses its GPU over it, and the one after that reads and generates on the processor.
  const again = await answer(engine);
  assert.deepEqual(again.slice(0, told.length), told);
  assert.equal(starts(world), 3);
  assert.equal(engine.status().model?.backend, "cpu");
});

test("a cancel that meets a lost device is a cancel", async () => {
  const world = watched(["extend 2"]);
  const abort = new AbortController();
  await world.engine.load(loadRequest(tinyModel(), { backend: "auto" }));
  const reading = world.engine.sync(prompt, { signal: abort.signal, onProgress: () => abort.abort() });
  assert.equal(await failureKind(reading), "cancelled");
  assert.equal(await failureKind(world.engine.sync(prompt)), "resolved");
});

/** A question put to four shards as one batch. */
async function scan(engine: EnginePort, backend: "auto" | "cpu" | "cuda"): Promise<Told> {
  const names = ["ledger", "parcel", "harbour", "lantern"];
  const files = names.map((name) => [
    `src/${name}.ts`,
    `${"// Nothing of interest.\n".repeat(20)}export function ${name}Total(count: number): number {\n  return roundToCents(count);\n}\n`,
  ]);
  const outcome = await askTold(
    { text: "Where is `roundToCents` used?", effort: "high", exhaustive: true, shardTokens: 256 },
    {
      context: contextOf(new MemoryRepository(Object.fromEntries(files) as Record<string, string>)),
      engine,
      load: loadRequest(nanoFolder, { backend }),
    },
  );
  return outcome;
}

test("lost in the middle of a scan's batch: all of it is answered once more, and says the same", async () => {
  const expected = await scan(newEngine(), "cpu");
  assert.equal(expected.shards.length, 4);
  for (const faults of [["step 20"], ["step 1"], ["step 20", "step 20"], ["step 20", "extend 2"]]) {
    const world = watched(faults);
    const outcome = await scan(world.engine, "auto");
    assert.equal(world.left(), "", faults.join(", "));
    assert.equal(starts(world), 1 + faults.length);
    assert.equal(outcome.done, "complete");
    assert.equal(outcome.answer, expected.answer);
    assert.deepEqual(outcome.citations, expected.citations);
    assert.equal(world.engine.status().model?.backend, faults.length > 1 ? "cpu" : "cuda");
  }
});

test("lost in a scan's batch again and again: the question ends with the reason, and the next one is answered", async () => {
  const world = watched(["step 20", "step 20", "step 20"]);
  const outcome = await scan(world.engine, "cuda");
  assert.equal(outcome.error?.kind, "device-lost");
  assert.equal(outcome.done, null);
  assert.equal(world.left(), "");
  assert.equal((await scan(world.engine, "cuda")).done, "complete");
});

test("losses that lie long apart do not add up", () => {
  const losses = new DeviceLosses();
  const auto = loadRequest("/m", { backend: "auto" });
  losses.note(lost, auto, 0);
  losses.note(lost, auto, deviceLossWindowMs);
  assert.deepEqual(losses.requestFor(auto), auto);
  losses.note(lost, auto, deviceLossWindowMs + 1);
  assert.deepEqual(losses.requestFor(auto), { ...auto, backend: "cpu" });
  losses.forget();
  assert.deepEqual(losses.requestFor(auto), auto);
  assert.equal(losses.told(), null);
});
