// Dying is normal: the engine process may end at any moment, and so may its client. What runs is told so, the next request works.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as path from "node:path";
import type { Socket } from "node:net";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import * as fc from "fast-check";
import { RestartBudget, restartWindowMs } from "../../src/engine/supervisor";
import { engineProtocolVersion } from "../../src/protocol/engine";
import { encodeFrame, FrameDecoder } from "../../src/protocol/frame";
import {
  addonPath,
  failureKind,
  hostScript,
  nanoFolder,
  newEngine,
  root,
  scratchFolder,
  tinyModel,
} from "./engineUnderTest";
import { endsWithin, isRunning, killIdle, watchedEngine } from "./hostProcess";
import { greedy, loadRequest, promptOf } from "./prompts";

const longPrompt = promptOf(30_000, "where?");

test("killed while idle, in prefill and in decode: typed, and the next request works", async () => {
  const { engine, pid, starts } = watchedEngine();
  await engine.load(loadRequest(nanoFolder));

  const idle = pid();
  await killIdle(engine, idle);
  assert.equal(await failureKind(engine.countTokens(["still there?"])), "resolved");
  assert.notEqual(pid(), idle);

  const reading = engine.sync(longPrompt, {
    onProgress: ({ position }) => {
      if (position > 0 && isRunning(pid())) process.kill(pid(), "SIGKILL");
    },
  });
  assert.equal(await failureKind(reading), "engine-died");
  assert.equal(engine.status().state, "failed");
  assert.equal(engine.status().error?.kind, "engine-died");
  assert.equal(engine.status().error?.actual, "signal SIGKILL");

  const done = await engine.sync(promptOf(3_000, "Where is `fox` defined?"));
  assert.equal(done.reusedTokens, 0, "a new process has read nothing yet");
  const received: number[] = [];
  const generating = engine.generate(
    { maxTokens: 20_000, sampler: greedy },
    {
      onTokens: (batch) => {
        received.push(...batch.ids);
        if (isRunning(pid())) process.kill(pid(), "SIGKILL");
      },
    },
  );
  assert.equal(await failureKind(generating), "engine-died");
  assert.ok(received.length > 0, "what was shown stays shown");

  assert.equal(await failureKind(engine.sync(promptOf(500, "again"))), "resolved");
  assert.equal(engine.status().state, "ready");
  assert.equal(starts(), 4);
});

test("killed while loading: typed, and the next load works", async () => {
  const { engine, pid } = watchedEngine();
  let killed = 0;
  const load = engine.load(loadRequest(nanoFolder), {
    onProgress: () => {
      if (killed === 0) process.kill(pid(), "SIGKILL");
      killed = pid();
    },
  });
  assert.equal(await failureKind(load), "engine-died");
  assert.ok(killed > 0);
  assert.equal(await failureKind(engine.load(loadRequest(nanoFolder))), "resolved");
});

test("a process that keeps dying is started three times again, then not until the user wants it", async () => {
  const { engine, pid, starts } = watchedEngine();
  await engine.load(loadRequest(tinyModel()));
  for (let restart = 0; restart < 3; restart += 1) {
    await killIdle(engine, pid());
    assert.equal(await failureKind(engine.countTokens(["x"])), "resolved");
  }
  await killIdle(engine, pid(), "SIGSEGV");
  assert.equal(await failureKind(engine.countTokens(["x"])), "engine-restart-limit");
  assert.equal(await failureKind(engine.countTokens(["x"])), "engine-restart-limit");
  assert.equal(engine.status().error?.kind, "engine-restart-limit");
  assert.equal(starts(), 4);
  await engine.stop();
  assert.equal(await failureKind(engine.countTokens(["x"])), "resolved");
});

test("the budget forgets restarts that are older than its window", () => {
  const budget = new RestartBudget();
  assert.deepEqual(
    [0, 1, 2, 3, restartWindowMs - 1, restartWindowMs, restartWindowMs].map((nowMs) => budget.take(nowMs)),
    [true, true, true, false, false, true, false],
  );
});

test("cancel is obeyed in prefill and in decode, and reading goes on where it stopped", async (t) => {
  const { engine, pid } = watchedEngine();
  await engine.load(loadRequest(nanoFolder));
  const first = pid();

  const reading = new AbortController();
  let abortedMs = 0;
  const kind = await failureKind(
    engine.sync(longPrompt, {
      signal: reading.signal,
      onProgress: ({ position }) => {
        if (position < 1_000 || reading.signal.aborted) return;
        abortedMs = performance.now();
        reading.abort();
      },
    }),
  );
  const prefillMs = performance.now() - abortedMs;
  assert.equal(kind, "cancelled");
  t.diagnostic(`cancel in prefill: ${prefillMs.toFixed(0)} ms`);
  assert.ok(prefillMs < 1_000, `${String(prefillMs)} ms`);
  assert.equal(engine.status().state, "ready");

  const rest = new AbortController();
  const seen: number[] = [];
  await failureKind(
    engine.sync(longPrompt, {
      signal: rest.signal,
      onProgress: ({ reusedTokens }) => {
        seen.push(reusedTokens);
        rest.abort();
      },
    }),
  );
  assert.ok((seen[0] ?? 0) >= 960, `read on from ${String(seen[0])}`);

  await engine.sync(promptOf(2_000, "Show the code of `fox`."));
  const decoding = new AbortController();
  const stopped = await failureKind(
    engine.generate(
      { maxTokens: 20_000, sampler: greedy },
      {
        signal: decoding.signal,
        onTokens: () => {
          if (decoding.signal.aborted) return;
          abortedMs = performance.now();
          decoding.abort();
        },
      },
    ),
  );
  const decodeMs = performance.now() - abortedMs;
  assert.equal(stopped, "cancelled");
  t.diagnostic(`cancel in decode: ${decodeMs.toFixed(0)} ms`);
  assert.ok(decodeMs < 1_000, `${String(decodeMs)} ms`);

  const aborted = AbortSignal.abort();
  assert.equal(await failureKind(engine.sync(longPrompt, { signal: aborted })), "cancelled");
  assert.equal(await failureKind(engine.sync(promptOf(500, "after"))), "resolved");
  assert.equal(pid(), first, "no restart was needed");
});

test("a host that hangs is ended when it does not obey a cancel, and a load that is not wanted any more ends too", async () => {
  const { engine, pid } = watchedEngine();
  await engine.load(loadRequest(tinyModel()));
  const hanging = pid();
  process.kill(hanging, "SIGSTOP");
  const controller = new AbortController();
  const counting = failureKind(engine.countTokens(["x"], controller.signal));
  await new Promise((resolve) => setTimeout(resolve, 50));
  controller.abort();
  assert.equal(await counting, "cancelled");
  assert.ok(!isRunning(hanging));
  assert.equal(await failureKind(engine.countTokens(["x"])), "resolved");

  const loading = new AbortController();
  const load = failureKind(
    engine.load(loadRequest(nanoFolder), {
      signal: loading.signal,
      onProgress: () => {
        loading.abort();
      },
    }),
  );
  assert.equal(await load, "cancelled");
  assert.equal(await failureKind(engine.load(loadRequest(tinyModel()))), "resolved");

  const replaced = failureKind(engine.load(loadRequest(nanoFolder)));
  await new Promise((resolve) => setImmediate(resolve));
  const wanted = await engine.load(loadRequest(tinyModel()));
  assert.equal(wanted.vocabRows, 512);
  assert.equal(await replaced, "cancelled");

  await engine.stop();
  const early = failureKind(engine.load(loadRequest(nanoFolder)));
  assert.equal((await engine.load(loadRequest(tinyModel()))).vocabRows, 512);
  assert.equal(await early, "cancelled", "replaced while the process was starting");
});

for (const where of ["idle", "reading"]) {
  test(`the host ends within a second after its client was killed (${where})`, async (t) => {
    const client = spawn(
      process.execPath,
      ["--import", "tsx", path.join(__dirname, "abandon.ts"), hostScript(), addonPath, nanoFolder, where],
      { cwd: root, stdio: ["ignore", "pipe", "inherit"] },
    );
    const pid = await new Promise<number>((resolve, reject) => {
      client.stdout.once("data", (chunk: Buffer) => {
        resolve(Number(/\d+/.exec(chunk.toString())?.[0]));
      });
      client.once("exit", () => {
        reject(new Error("the client ended before it told the host's id"));
      });
    });
    assert.ok(isRunning(pid));
    client.kill("SIGKILL");
    const endedMs = await endsWithin(pid, 5_000);
    t.diagnostic(`${where}: ${endedMs.toFixed(0)} ms`);
    assert.ok(endedMs < 1_000, `${String(endedMs)} ms`);
  });
}

interface RawHost {
  readonly child: ChildProcess;
  readonly socket: Socket;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;
}

function rawHost(): RawHost {
  const child = spawn(process.execPath, [hostScript(), addonPath], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const socket = child.stdio[3] as Socket;
  socket.on("error", () => undefined);
  const ended = new Promise<Awaited<RawHost["ended"]>>((resolve) => {
    child.once("exit", (code, signal) => {
      resolve({ code, signal });
    });
  });
  return { child, socket, ended };
}

async function greeted({ socket }: RawHost): Promise<unknown> {
  const decoder = new FrameDecoder();
  socket.write(encodeFrame({ type: "hello", id: 1, version: engineProtocolVersion }));
  return new Promise((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      for (const value of decoder.push(chunk)) resolve(value);
    });
  });
}

test("bytes that are no frames end the connection and the host, without a crash", async () => {
  const attacks: Buffer[] = [
    Buffer.alloc(4),
    Buffer.from([0xff, 0xff, 0xff, 0xff]),
    Buffer.from(encodeFrame({ type: "launch", id: 1 })),
    Buffer.from(encodeFrame({ type: "generate", id: 1, maxTokens: -1, sampler: greedy })),
    Buffer.from(encodeFrame([])),
    ...fc.sample(fc.uint8Array({ minLength: 64, maxLength: 4_096 }), { numRuns: 6, seed: 7 }).map((bytes) => {
      const frame = Buffer.concat([Buffer.alloc(4), bytes]);
      frame.writeUInt32LE(bytes.length);
      return frame;
    }),
  ];
  await Promise.all(
    attacks.map(async (bytes, index) => {
      const host = rawHost();
      await greeted(host);
      host.socket.write(bytes);
      assert.deepEqual(await host.ended, { code: 0, signal: null }, `attack ${String(index)}`);
    }),
  );
});

test("a client that does not read for a while loses nothing", async () => {
  const host = rawHost();
  const load = loadRequest(tinyModel());
  host.socket.pause();
  host.socket.write(encodeFrame({ type: "load", id: 1, load }));
  const text = "slow reader ".repeat(40_000);
  for (let id = 2; id < 22; id += 1) {
    host.socket.write(encodeFrame({ type: "tokenize", id, texts: [text], special: false }));
  }
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const answered: unknown[] = [];
  const decoder = new FrameDecoder();
  await new Promise<void>((resolve) => {
    host.socket.on("data", (chunk: Buffer) => {
      for (const value of decoder.push(chunk)) {
        const { type, id } = value as { type: string; id: number };
        if (type === "result" || type === "failed") answered.push([type, id]);
      }
      if (answered.length === 21) resolve();
    });
    host.socket.resume();
  });
  assert.deepEqual(
    answered,
    Array.from({ length: 21 }, (_, index) => ["result", index + 1]),
  );
  host.socket.destroy();
  assert.deepEqual(await host.ended, { code: 0, signal: null });
});

test("a host that talks nonsense is ended, with a typed error for those who wait", async () => {
  const script = path.join(scratchFolder("nonsense"), "host.js");
  writeFileSync(
    script,
    `const socket = new (require("node:net").Socket)({ fd: 3 });
     socket.on("data", () => socket.write(Buffer.from([255, 255, 255, 255])));`,
  );
  const engine = newEngine({ hostScript: script });
  assert.equal(await failureKind(engine.load(loadRequest(tinyModel()))), "frame-invalid");
  assert.equal(engine.status().state, "failed");
});

test("a host that ends at once is an engine that died", async () => {
  const script = path.join(scratchFolder("short"), "host.js");
  writeFileSync(script, "process.exit(3);");
  const engine = newEngine({ hostScript: script });
  assert.equal(await failureKind(engine.load(loadRequest(tinyModel()))), "engine-died");
  assert.equal(engine.status().error?.actual, "exit code 3");
});
