// Answers generated together through the client: the same as each alone, ended one by one or all at once, and an engine that dies.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { NativeModel } from "../../src/engine/addonTypes";
import { BatchSessions } from "../../src/engine/batchSessions";
import type { EnginePort, GenerateDone } from "../../src/protocol/engine";
import { RingsideFailure } from "../../src/protocol/errors";
import { failureKind, nanoFolder, newEngine, tinyModel } from "./engineUnderTest";
import { isRunning, watchedEngine } from "./hostProcess";
import { greedy, loadRequest, promptOf } from "./prompts";

const options = { maxTokens: 48, sampler: greedy, promptLookup: true };
const prompts = Array.from({ length: 5 }, (_, index) =>
  promptOf(700 + 300 * index, `Where is \`fox${String(index)}\`?`),
);
const sessions = prompts.map((_, index) => index + 1);

async function readAll(engine: EnginePort): Promise<number[]> {
  const reused: number[] = [];
  for (const [index, prompt] of prompts.entries()) {
    reused.push((await engine.sync(prompt, { session: index + 1 })).reusedTokens);
  }
  return reused;
}

async function together(engine: EnginePort): Promise<{ said: Map<number, number[]>; done: readonly GenerateDone[] }> {
  const said = new Map<number, number[]>(sessions.map((session) => [session, []]));
  const done = await engine.generateTogether(
    sessions.map((session) => ({ session, ...options })),
    { onTokens: (session, { ids }) => said.get(session)?.push(...ids) },
  );
  return { said, done };
}

test("each member gets the tokens that it would get alone, and a second time nothing is read again", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(nanoFolder));
  const alone: number[][] = [];
  for (const prompt of prompts) {
    const ids: number[] = [];
    await engine.sync(prompt);
    await engine.generate(options, { onTokens: (batch) => ids.push(...batch.ids) });
    alone.push(ids);
  }
  await engine.sync(promptOf(400, "the conversation"));
  for (const round of ["first", "second"]) {
    for (const [index, reused] of (await readAll(engine)).entries()) {
      assert.ok(reused > 0, `${round} round, member ${String(index)}: its state was kept when it was read alone`);
    }
    const { said, done } = await together(engine);
    assert.deepEqual([...said.values()], alone, `${round} round`);
    assert.deepEqual(
      done.map(({ tokens }) => tokens),
      alone.map((ids) => ids.length),
    );
  }
  const kept = await engine.sync(promptOf(400, "the conversation"));
  assert.ok(kept.promptTokens - kept.reusedTokens <= 64, "the session of the conversation was left alone");
});

test("one member ends when its own signal says so, the others go on to their end", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(tinyModel()));
  await readAll(engine);
  const stop = new AbortController();
  const done = await engine.generateTogether(
    sessions.map((session) => ({
      session,
      ...options,
      maxTokens: session === 2 ? 20_000 : 200,
      sampler: { ...greedy, temperature: 1 },
      ...(session === 2 ? { signal: stop.signal } : {}),
    })),
    {
      onTokens: (session) => {
        if (session === 2) stop.abort();
      },
    },
  );
  const reasons = done.map(({ reason }) => reason);
  assert.equal(reasons[1], "cancelled");
  assert.equal(reasons.filter((reason) => reason === "cancelled").length, 1);
});

test("cancelled in the middle: no more tokens come, and the next batch works", async (t) => {
  const engine = newEngine();
  await engine.load(loadRequest(nanoFolder));
  await readAll(engine);
  const stop = new AbortController();
  let abortedMs = 0;
  const kind = await failureKind(
    engine.generateTogether(
      sessions.map((session) => ({ session, ...options, maxTokens: 20_000, sampler: { ...greedy, temperature: 1 } })),
      {
        signal: stop.signal,
        onTokens: () => {
          if (stop.signal.aborted) return;
          abortedMs = performance.now();
          stop.abort();
        },
      },
    ),
  );
  const cancelMs = performance.now() - abortedMs;
  assert.equal(kind, "cancelled");
  t.diagnostic(`cancel of a batch: ${cancelMs.toFixed(0)} ms`);
  assert.ok(cancelMs < 1_000, `${String(cancelMs)} ms`);
  const unread = engine.generateTogether([{ session: 1, ...options }], { onTokens: () => undefined });
  assert.equal(await failureKind(unread), "state-invalid", "a cancelled batch has given its sessions back");
  await readAll(engine);
  assert.equal((await together(engine)).done.length, prompts.length);
});

test("killed in the middle: typed, and the next batch works", async () => {
  const { engine, pid } = watchedEngine();
  await engine.load(loadRequest(nanoFolder));
  await readAll(engine);
  const first = pid();
  const dying = engine.generateTogether(
    sessions.map((session) => ({ session, ...options, maxTokens: 20_000 })),
    {
      onTokens: () => {
        if (isRunning(first)) process.kill(first, "SIGKILL");
      },
    },
  );
  assert.equal(await failureKind(dying), "engine-died");
  assert.equal((await readAll(engine))[0], 0, "a new process has read nothing yet");
  assert.equal((await together(engine)).done.length, prompts.length);
});

test("a session that has read nothing is refused, and the main one ends those of a batch", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(tinyModel()));
  const lone = (): Promise<unknown> =>
    engine.generateTogether([{ session: 3, ...options }], { onTokens: () => undefined });
  assert.equal(await failureKind(lone()), "state-invalid");
  await engine.sync(promptOf(300, "x"), { session: 3 });
  await engine.sync(promptOf(300, "x"));
  assert.equal(await failureKind(lone()), "state-invalid");
  await engine.sync(promptOf(300, "x"), { session: 3 });
  assert.equal(await failureKind(lone()), "resolved");
});

test("sessions over their share of the memory are refused, but for the first; a closed batch gives its share back", () => {
  let open = 0;
  const model = {
    openSession: () => {
      open += 1;
      return { ok: true, value: { close: () => (open -= 1) } };
    },
  } as unknown as NativeModel;
  const batch = new BatchSessions(model, { stateBytes: 10, kvBytesPerToken: 1 }, 100);
  const isRefused = (cause: unknown): boolean =>
    cause instanceof RingsideFailure && cause.error.kind === "out-of-memory" && cause.error.subject === "sessions";
  batch.open(1, 1_000);
  assert.throws(() => batch.open(2, 1), isRefused);
  const first = batch.open(1, 30);
  assert.equal(batch.open(1, 30), first, "the same session for another prompt");
  batch.open(2, 50);
  assert.throws(() => batch.open(3, 0), isRefused);
  assert.equal(open, 2, "a refused one was not opened");
  batch.close();
  assert.equal(open, 0);
  batch.open(3, 90);
});
