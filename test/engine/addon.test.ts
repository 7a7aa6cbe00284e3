// The native addon by itself, without the host: every method in every state, every argument wrong, and every way to leave
// while a call runs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { openAddon } from "../../src/engine/addon";
import type { NativeModel, NativeResult, NativeSession, NativeSnapshot } from "../../src/engine/addonTypes";
import type { RingsideError } from "../../src/protocol/errors";
import { addonPath, root, tinyModel } from "./engineUnderTest";

const addon = openAddon(addonPath);
const folder = tinyModel();
const greedy = { temperature: 0, topP: 1, repetitionPenalty: 1, seed: 0 };
const ignore = (): undefined => undefined;

interface LoadOptions {
  folder: string;
  backend: string;
  threads: number;
  slopeForm: string;
  isa: string;
  kvFormat: string;
}
const options: LoadOptions = { folder, backend: "cpu", threads: 1, slopeForm: "A", isa: "", kvFormat: "bf16" };
/** Slow enough that a call still runs when the next line of a test does. */
const slow: LoadOptions = { ...options, backend: "reference" };

function value<T>(result: NativeResult<T>): T {
  assert.ok(result.ok, result.ok ? "" : JSON.stringify(result.error));
  return result.value;
}
function kind(result: NativeResult<unknown>): string {
  return result.ok ? "ok" : result.error.kind;
}
async function load(wanted: LoadOptions = options): Promise<NativeModel> {
  return value(await addon.loadModel(wanted, ignore));
}
function ids(count: number, seed = 1): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (i * 7919 + seed * 104729) % 256);
}
/** For calls that TypeScript would not let through. */
function untyped(target: object): Record<string, (...args: unknown[]) => unknown> {
  return target as Record<string, (...args: unknown[]) => unknown>;
}
async function argumentError(result: unknown): Promise<RingsideError> {
  const settled = (await result) as NativeResult<unknown>;
  assert.ok(!settled.ok, "an argument that is wrong was taken");
  assert.equal(settled.error.kind, "argument-invalid");
  return settled.error;
}

test("exports its two functions and nothing else", () => {
  assert.deepEqual(Object.keys(addon), ["loadModel", "generateTogether"]);
});

test("loads with progress and says what it is", async () => {
  const fractions: number[] = [];
  const model = value(await addon.loadModel(options, (fraction) => fractions.push(fraction)));
  assert.ok(fractions.length > 0 && fractions.every((fraction) => fraction >= 0 && fraction <= 1));
  assert.deepEqual(
    fractions,
    [...fractions].sort((left, right) => left - right),
  );
  const info = model.info();
  assert.deepEqual(Object.keys(info).sort(), [
    "backend",
    "contextTokens",
    "device",
    "folder",
    "heads",
    "isa",
    "kvBytesPerToken",
    "layers",
    "layout",
    "linearLayers",
    "stateBytes",
    "stopTokens",
    "threads",
    "vocab",
    "vocabRows",
    "weightFileBytes",
    "weightResidentBytes",
  ]);
  assert.equal(info.folder, folder);
  assert.equal(info.backend, "cpu");
  assert.equal(info.vocabRows, 512);
  assert.ok(info.vocab < info.vocabRows);
  assert.deepEqual(info.stopTokens, [0]);
});

test("what cannot be loaded is a value that says why", async () => {
  const missing = await addon.loadModel({ ...options, folder: `${folder}/nowhere` }, ignore);
  assert.ok(!missing.ok);
  assert.equal(missing.error.kind, "file-missing");
  assert.ok(missing.error.subject.includes("nowhere"));
  assert.equal(kind(await addon.loadModel({ ...options, backend: "cuda" }, ignore)), "backend-unavailable");
});

test("load: wrong arguments are refused by name", async () => {
  const call = untyped(addon)["loadModel"];
  assert.ok(call);
  await argumentError(call());
  await argumentError(call(null, ignore));
  await argumentError(call(options));
  await argumentError(call(options, 3));
  for (const name of Object.keys(options)) {
    assert.equal((await argumentError(call({ ...options, [name]: undefined }, ignore))).subject, name);
    assert.equal((await argumentError(call({ ...options, [name]: {} }, ignore))).subject, name);
  }
  for (const threads of [-1, 1.5, NaN, Infinity, 1e9]) await argumentError(call({ ...options, threads }, ignore));
  for (const device of [-2, 0.5, NaN, 64, "0"]) {
    assert.equal((await argumentError(call({ ...options, device }, ignore))).subject, "device");
  }
  for (const deviceMemoryBytes of [-1, 0.5, Infinity, 2 ** 51, "8G"]) {
    const error = await argumentError(call({ ...options, deviceMemoryBytes }, ignore));
    assert.equal(error.subject, "deviceMemoryBytes");
  }
  await argumentError(call({ ...options, slopeForm: "D" }, ignore));
  await argumentError(call({ ...options, backend: "gpu" }, ignore));
  await argumentError(call({ ...options, isa: "mmx" }, ignore));
  await argumentError(call({ ...options, folder: "" }, ignore));
  await argumentError(call({ ...options, folder: `${folder}\0/x` }, ignore));
  const throwing = Object.defineProperty({ ...options }, "folder", {
    get: () => {
      throw new Error("not today");
    },
  });
  await argumentError(call(throwing, ignore));
});

test("text: encodes, decodes, knows its added tokens", async () => {
  const model = await load();
  const text = "abc déjà <think> 漢字 \u{1f600}";
  const plain = value(model.encode(text));
  assert.ok(plain instanceof Int32Array);
  assert.equal(value(model.decode(plain)), text);
  const think = model.addedId("<think>");
  assert.ok(think >= 0 && !plain.includes(think));
  assert.ok(value(model.encodeWithAdded(text)).includes(think));
  assert.equal(model.addedId("<nothing>"), -1);
  assert.equal(value(model.decode(Int32Array.of(think))), "<think>");
  assert.equal(value(model.encode("")).length, 0);
  assert.equal(value(model.decode(new Int32Array(0))), "");
  assert.equal(value(model.decode(value(model.encode("\ud800")))), "\ufffd");
  assert.equal(kind(model.decode(Int32Array.of(512))), "token-out-of-range");
  assert.equal(kind(model.decode(Int32Array.of(-1))), "token-out-of-range");
  const loose = untyped(model);
  await argumentError(loose["encode"]?.(7));
  await argumentError(loose["encodeWithAdded"]?.());
  await argumentError(loose["decode"]?.([1, 2]));
  await argumentError(loose["decode"]?.(new Uint8Array(2)));
  assert.equal(loose["addedId"]?.(7), -1);
});

test("reads, generates in batches, and the text is that of the tokens", async () => {
  const session = value((await load()).openSession());
  const positions: number[] = [];
  const prompt = ids(1_500);
  assert.deepEqual(value(await session.sync(prompt, [], (position) => positions.push(position))), { reused: 0 });
  assert.equal(session.position(), 1_500);
  assert.equal(positions.at(-1), 1_500);
  assert.ok(session.bytes() > 0);
  const model = await load();
  const seen: number[] = [];
  let text = "";
  const sampler = { ...greedy, temperature: 2, seed: 5 };
  const done = value(
    await session.generate({ maxTokens: 60, sampler, stopTokens: [], promptLookup: true }, (batch, part) => {
      assert.ok(batch instanceof Int32Array && typeof part === "string");
      seen.push(...batch);
      text += part;
    }),
  );
  assert.equal(seen.length, done.tokens);
  assert.equal(text, value(model.decode(Int32Array.from(seen))));
  assert.equal(session.position(), 1_500 + done.tokens);
  assert.ok(done.reason === "token-limit" || done.reason === "stop-token");
  // A token that stops is not among the ones that come out.
  assert.ok(seen[3] !== undefined);
  value(await session.sync(prompt, [], ignore));
  const stopped: number[] = [];
  const stop = seen[3];
  const early = value(
    await session.generate({ maxTokens: 60, sampler, stopTokens: [stop], promptLookup: true }, (batch) =>
      stopped.push(...batch),
    ),
  );
  assert.equal(early.reason, "stop-token");
  assert.deepEqual(stopped, seen.slice(0, seen.indexOf(stop)));
});

test("while tokens are slow none waits for the next; the first comes at once", async () => {
  const session = value((await load(slow)).openSession());
  value(await session.sync(ids(2_000), [], ignore));
  const startedMs = performance.now();
  const sizes: number[] = [];
  const done = value(
    await session.generate(
      { maxTokens: 150, sampler: { ...greedy, temperature: 2 }, stopTokens: [], promptLookup: true },
      (batch) => {
        sizes.push(batch.length);
      },
    ),
  );
  const tokenMs = (performance.now() - startedMs) / done.tokens;
  assert.equal(sizes[0], 1);
  // Counted, not timed: how many tokens 30 ms hold depends on how busy the machine is.
  const most = Math.ceil(30 / tokenMs) + 1;
  const median = sizes.sort((left, right) => left - right)[Math.floor(sizes.length / 2)] ?? 0;
  assert.ok(median <= most, `half of the batches hold over ${String(median)} tokens of ${tokenMs.toFixed(1)} ms each`);
});

test("logits are rows of the vocabulary, the same for any split, and give state norms", async () => {
  const model = await load();
  const whole = value(model.openSession());
  const all = value(await whole.logits(ids(130)));
  assert.equal(all.length, 130 * 512);
  const split = value(model.openSession());
  const parts = [value(await split.logits(ids(130).slice(0, 65))), value(await split.logits(ids(130).slice(65)))];
  assert.deepEqual(Buffer.concat(parts.map((part) => Buffer.from(part.buffer))), Buffer.from(all.buffer));
  const norms = value(whole.stateNorms());
  assert.equal(norms.length, model.info().linearLayers * model.info().heads);
  assert.deepEqual(norms, value(split.stateNorms()));
});

test("a snapshot spares the reading of what it holds", async () => {
  const model = await load();
  const session = value(model.openSession());
  value(await session.sync(ids(300), [], ignore));
  const snapshot = value(session.snapshot());
  assert.equal(snapshot.position(), 256);
  assert.ok(snapshot.bytes() > 0);
  const other = value(model.openSession());
  assert.deepEqual(value(await other.sync(ids(400), [snapshot], ignore)), { reused: 256 });
  // Closed while a call uses it: the call has its own hold.
  const again = value(model.openSession());
  const running = again.sync(ids(500), [snapshot], ignore);
  snapshot.close();
  assert.deepEqual(value(await running), { reused: 256 });
  assert.equal(kind(await again.sync(ids(500), [snapshot], ignore)), "state-invalid");
  assert.equal(snapshot.position(), 0);
  assert.equal(snapshot.bytes(), 0);
  snapshot.close();
});

/** Each method of a session with right arguments. */
const sessionMethods: Record<keyof NativeSession, (session: NativeSession) => unknown> = {
  position: (session) => session.position(),
  bytes: (session) => session.bytes(),
  sync: (session) => session.sync(ids(10), [], ignore),
  snapshot: (session) => session.snapshot(),
  generate: (session) =>
    session.generate({ maxTokens: 1, sampler: greedy, stopTokens: [], promptLookup: true }, ignore),
  logits: (session) => session.logits(ids(1)),
  stateNorms: (session) => session.stateNorms(),
  cancel: (session) => {
    session.cancel();
  },
  close: (session) => {
    session.close();
  },
};
const answers = ["sync", "snapshot", "generate", "logits", "stateNorms"] as const;

async function kindsOf(session: NativeSession): Promise<string[]> {
  const found: string[] = [];
  for (const name of answers) found.push(kind((await sessionMethods[name](session)) as NativeResult<unknown>));
  return found;
}
const allInvalid = answers.map(() => "state-invalid");

test("session: every method in every state", async () => {
  const model = await load(slow);
  const session = value(model.openSession());
  assert.deepEqual(await kindsOf(session), ["ok", "ok", "ok", "ok", "ok"]);
  for (const name of ["position", "bytes"] as const) assert.equal(typeof sessionMethods[name](session), "number");
  session.cancel(); // nothing runs: nothing happens

  const running = session.sync(ids(20_000, 2), [], ignore);
  assert.deepEqual(await kindsOf(session), allInvalid);
  for (const name of ["position", "bytes"] as const) assert.equal(typeof sessionMethods[name](session), "number");
  session.cancel();
  assert.equal(kind(await running), "cancelled");
  assert.equal(kind(await session.sync(ids(10), [], ignore)), "ok", "a cancel is for one call");

  const last = session.sync(ids(20_000, 3), [], ignore);
  session.close();
  assert.deepEqual(await kindsOf(session), allInvalid, "a session that closes takes no more calls");
  session.cancel();
  assert.equal(kind(await last), "cancelled");
  assert.deepEqual(await kindsOf(session), allInvalid);
  assert.equal(session.position(), 0);
  assert.equal(session.bytes(), 0);
  session.cancel();
  session.close();
});

test("session: a call that runs when it is closed goes on to its end", async () => {
  const session = value((await load()).openSession());
  const running = session.sync(ids(3_000), [], ignore);
  session.close();
  assert.deepEqual(value(await running), { reused: 0 });
});

test("model: every method when it is closed; its sessions and snapshots live on", async () => {
  const model = await load();
  const session = value(model.openSession());
  value(await session.sync(ids(100), [], ignore));
  const snapshot = value(session.snapshot());
  model.close();
  model.close();
  assert.equal(kind(model.encode("a")), "state-invalid");
  assert.equal(kind(model.encodeWithAdded("a")), "state-invalid");
  assert.equal(kind(model.decode(ids(1))), "state-invalid");
  assert.equal(kind(model.openSession()), "state-invalid");
  assert.equal(model.addedId("<think>"), -1);
  assert.equal(model.info().layers, 6);
  assert.deepEqual(value(await session.sync(ids(200), [snapshot], ignore)), { reused: 100 });
  session.close();
  snapshot.close();
});

test("session: wrong arguments are refused before anything runs", async () => {
  const session = value((await load()).openSession());
  const loose = untyped(session);
  const sync = (...args: unknown[]): unknown => loose["sync"]?.(...args);
  const generate = (...args: unknown[]): unknown => loose["generate"]?.(...args);
  for (const tokens of [undefined, null, [1, 2], "1", new Float32Array(2), new BigInt64Array(2), { length: 1 }]) {
    assert.equal((await argumentError(sync(tokens, [], ignore))).subject, "tokens");
    assert.equal((await argumentError(loose["logits"]?.(tokens))).subject, "tokens");
  }
  for (const snapshots of [undefined, {}, [null], [{}], [session], [new Date()], [Object.create(session) as unknown]]) {
    assert.equal((await argumentError(sync(ids(2), snapshots, ignore))).subject, "snapshots");
  }
  assert.equal((await argumentError(sync(ids(2), [], "no"))).subject, "onAdvanced");
  await argumentError(sync(new Int32Array(0), [], ignore));
  assert.equal(kind(await session.sync(Int32Array.of(1, 512), [], ignore)), "token-out-of-range");
  assert.equal(kind(await session.sync(new Int32Array(32_769), [], ignore)), "context-full");
  const detached = ids(4);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  await argumentError(sync(detached, [], ignore));

  value(await session.sync(ids(5), [], ignore));
  const right = { maxTokens: 1, sampler: greedy, stopTokens: [], promptLookup: true };
  await argumentError(generate(undefined, ignore));
  assert.equal((await argumentError(generate(right))).subject, "onTokens");
  for (const maxTokens of [-1, 0.5, NaN, "1", 2 ** 31]) {
    assert.equal((await argumentError(generate({ ...right, maxTokens }, ignore))).subject, "maxTokens");
  }
  for (const promptLookup of [undefined, 1, "true"]) {
    assert.equal((await argumentError(generate({ ...right, promptLookup }, ignore))).subject, "promptLookup");
  }
  for (const stopTokens of [undefined, 1, [1.5], [-1], ["a"], [2 ** 31], new Array(70_000).fill(0)]) {
    assert.equal((await argumentError(generate({ ...right, stopTokens }, ignore))).subject, "stopTokens");
  }
  for (const wrong of [
    { temperature: -1 },
    { temperature: NaN },
    { topP: 0 },
    { topP: 1.1 },
    { repetitionPenalty: 0.9 },
    { seed: -1 },
    { seed: 2 ** 53 },
    { seed: 0.1 },
    { temperature: "0" },
    { seed: undefined },
  ]) {
    await argumentError(generate({ ...right, sampler: { ...greedy, ...wrong } }, ignore));
  }
  await argumentError(generate({ ...right, sampler: null }, ignore));
  assert.equal(session.position(), 5);
  assert.equal(kind(await session.generate(right, ignore)), "ok");
});

test("objects cannot be made or borrowed by JavaScript", async () => {
  const model = await load();
  const session = value(model.openSession());
  const constructors = [model, session].map((object) => object.constructor as new (...args: unknown[]) => object);
  for (const constructor of constructors) {
    assert.throws(() => new constructor(), TypeError);
    assert.throws(() => new constructor({}), TypeError);
  }
  const borrowed = untyped(session)["position"];
  assert.ok(borrowed);
  assert.throws(() => borrowed.call(model));
  assert.throws(() => borrowed.call({}));
});

test("two sessions of one model take turns, and one that waits can be cancelled", async () => {
  const model = await load(slow);
  const first = value(model.openSession());
  const second = value(model.openSession());
  const third = value(model.openSession());
  const order: string[] = [];
  const one = first.sync(ids(1_500), [], ignore).then((result) => (order.push("first"), result));
  const two = second.sync(ids(64), [], ignore).then((result) => (order.push("second"), result));
  const waiting = third.sync(ids(64), [], ignore);
  await wait(20);
  assert.equal(kind(model.openSession()), "state-invalid", "it would have to wait, and a synchronous call cannot");
  third.cancel();
  assert.equal(kind(await waiting), "cancelled");
  assert.deepEqual(order, [], "it did not wait for its turn");
  assert.equal(kind(await one), "ok");
  assert.equal(kind(await two), "ok");
  assert.deepEqual(order, ["first", "second"]);
  // Closing one while another runs frees it later, without a wait.
  const more = first.sync(ids(20_000, 4), [], ignore);
  await wait(20);
  second.close();
  first.cancel();
  assert.equal(kind(await more), "cancelled");
});

test("cancel ends a call within 100 ms, in reading and in writing", async (t) => {
  const session = value((await load(slow)).openSession());
  /** Of the quickest of three: other work that shares the machine is not the engine's. */
  const cancelledMs = async (start: () => Promise<NativeResult<unknown>>): Promise<number> => {
    let quickestMs = Infinity;
    for (let round = 0; round < 3; round++) {
      const running = start();
      await wait(150);
      const askedMs = performance.now();
      session.cancel();
      await running;
      quickestMs = Math.min(quickestMs, performance.now() - askedMs);
    }
    return quickestMs;
  };
  const readingMs = await cancelledMs(async () => {
    const sync = await session.sync(ids(30_000), [], ignore);
    assert.equal(kind(sync), "cancelled");
    return sync;
  });
  value(await session.sync(ids(200), [], ignore));
  const writingMs = await cancelledMs(async () => {
    const generated = await session.generate(
      { maxTokens: 30_000, sampler: { ...greedy, temperature: 1 }, stopTokens: [], promptLookup: true },
      ignore,
    );
    assert.ok(["cancelled", "stop-token"].includes(value(generated).reason));
    return generated;
  });
  t.diagnostic(`cancel in reading: ${readingMs.toFixed(1)} ms, in writing: ${writingMs.toFixed(1)} ms`);
  assert.ok(readingMs < 100 && writingMs < 100);
});

test("objects that are dropped while a call runs do not end it", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const start = async (): Promise<Promise<NativeResult<unknown>>[]> => {
    const model = await load(slow);
    // Both are opened first: a model whose call runs opens none.
    const [reading, asked] = [value(model.openSession()), value(model.openSession())];
    return [reading.sync(ids(600), [], ignore), asked.logits(ids(90))];
  };
  const held: NativeSnapshot[] = [];
  const running = await start();
  for (let round = 0; round < 5; round += 1) {
    collect();
    await wait(10);
  }
  for (const result of await Promise.all(running)) assert.equal(kind(result), "ok");
  for (let round = 0; round < 20; round += 1) {
    const session = value((await load()).openSession());
    value(await session.sync(ids(100), [], ignore));
    held.push(value(session.snapshot()));
    collect();
  }
  const session = value((await load()).openSession());
  assert.equal(kind(await session.sync(ids(200), held, ignore)), "ok");
});

/** A program that starts a long call and then leaves in the given way. */
const leaving = (way: string): string => `
  const addon = require(${JSON.stringify(addonPath)});
  const options = ${JSON.stringify(slow)};
  (async () => {
    const model = (await addon.loadModel(options, () => {})).value;
    const session = model.openSession().value;
    let seen = 0;
    session.sync(new Int32Array(30000).fill(7), [], () => {
      if (seen++ === 2) { ${way} }
    });
  })();
`;

async function exitOf(script: string): Promise<{ code: number | null; signal: string | null; milliseconds: number }> {
  const startedMs = performance.now();
  const child = spawn(process.execPath, ["-e", script], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  return new Promise((resolve) => {
    child.on("exit", (code, signal) => {
      resolve({ code, signal, milliseconds: performance.now() - startedMs });
    });
  });
}

test("a process that exits while a call runs exits, at once and as asked", async () => {
  const { code, signal, milliseconds } = await exitOf(leaving("process.exit(7);"));
  assert.deepEqual({ code, signal }, { code: 7, signal: null });
  assert.ok(milliseconds < 5_000, `${milliseconds.toFixed(0)} ms`);
});

test("a process whose load is cut off exits as asked", async () => {
  const script = `
    const addon = require(${JSON.stringify(addonPath)});
    addon.loadModel(${JSON.stringify(slow)}, () => process.exit(6));
  `;
  const { code, signal } = await exitOf(script);
  assert.deepEqual({ code, signal }, { code: 6, signal: null });
});

test("a callback that throws is an uncaught exception like any other", async () => {
  const script = `process.on("uncaughtException", (error) => process.exit(error.message === "mine" ? 5 : 4));
    ${leaving('throw new Error("mine");')}`;
  const { code, signal } = await exitOf(script);
  assert.deepEqual({ code, signal }, { code: 5, signal: null });
});

test("worker threads have the addon to themselves, and may be terminated while a call runs", async () => {
  for (let round = 0; round < 5; round += 1) {
    const worker = new Worker(leaving('require("node:worker_threads").parentPort.postMessage("running");'), {
      eval: true,
    });
    await new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    await wait(round * 5);
    await worker.terminate();
  }
  const session = value((await load()).openSession());
  assert.equal(kind(await session.sync(ids(100), [], ignore)), "ok");
});
