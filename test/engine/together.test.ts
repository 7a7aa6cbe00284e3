// Prompt lookup and generateTogether() through the addon and the host: neither changes a token, members are cancelled and
// closed one by one, and what cannot be a batch is refused.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openAddon } from "../../src/engine/addon";
import type {
  NativeGenerated,
  NativeGenerateOptions,
  NativeModel,
  NativeResult,
  NativeSession,
} from "../../src/engine/addonTypes";
import { addonPath, newEngine, tinyModel } from "./engineUnderTest";
import { greedy, loadRequest, promptOf } from "./prompts";

const addon = openAddon(addonPath);
const folder = tinyModel();
const ignore = (): undefined => undefined;
const options: NativeGenerateOptions = { maxTokens: 40, sampler: greedy, stopTokens: [], promptLookup: true };

function value<T>(result: NativeResult<T>): T {
  assert.ok(result.ok, result.ok ? "" : JSON.stringify(result.error));
  return result.value;
}
async function load(backend = "cpu"): Promise<NativeModel> {
  return value(await addon.loadModel({ ...loadRequest(folder), backend, threads: 1 }, ignore));
}
/** A prompt whose second half repeats the first. */
async function sessionOf(model: NativeModel, member: number): Promise<NativeSession> {
  const session = value(model.openSession());
  const half = 40 + 3 * member;
  const prompt = Int32Array.from({ length: 2 * half }, (_, i) => 3 + (((i % half) * 31 + member) % 200));
  value(await session.sync(prompt, [], ignore));
  return session;
}

/** One after another: a session cannot be opened while another one reads. */
async function sessionsOf(model: NativeModel, count: number): Promise<NativeSession[]> {
  const sessions: NativeSession[] = [];
  for (let member = 0; member < count; member += 1) sessions.push(await sessionOf(model, member));
  return sessions;
}

interface Said {
  readonly ids: readonly number[];
  readonly text: string;
  readonly reason: string;
}

async function alone(model: NativeModel, member: number, wanted: NativeGenerateOptions): Promise<Said> {
  const session = await sessionOf(model, member);
  const ids: number[] = [];
  let text = "";
  const { reason } = value(
    await session.generate(wanted, (batch, part) => {
      ids.push(...batch);
      text += part;
    }),
  );
  session.close();
  return { ids, text, reason };
}

test("together: each session gets the tokens and the text it would get alone", async () => {
  const model = await load();
  const members = Array.from({ length: 7 }, (_, member) => ({
    ...options,
    maxTokens: 5 + 11 * member,
    sampler: { ...greedy, temperature: member % 3 === 0 ? 0 : 0.8, seed: member },
    promptLookup: member % 2 === 0,
  }));
  const sessions = await sessionsOf(model, members.length);
  const said = members.map(() => ({ ids: [] as number[], text: "" }));
  const done = value(
    await addon.generateTogether(sessions, members, (index, ids, text) => {
      said[index]?.ids.push(...ids);
      const one = said[index];
      if (one !== undefined) one.text += text;
    }),
  );
  assert.equal(done.length, members.length);
  for (const [member, wanted] of members.entries()) {
    const expected = await alone(model, member, { ...wanted, promptLookup: false });
    assert.deepEqual({ ...said[member], reason: done[member]?.reason }, { ...expected });
    assert.equal(done[member]?.tokens, expected.ids.length);
  }
});

test("together: one is cancelled and one closed while they run; the others go on", async () => {
  const model = await load("reference");
  const sessions = await sessionsOf(model, 3);
  const [first, second, third] = sessions;
  assert.ok(first && second && third);
  const wanted = { ...options, maxTokens: 30, sampler: { ...greedy, temperature: 1 }, promptLookup: false };
  const running = addon.generateTogether(sessions, [wanted, { ...wanted, maxTokens: 30_000 }, wanted], (index) => {
    if (index !== 1) return;
    second.close(); // by itself it would go on to its end
    second.cancel();
  });
  for (const session of sessions) {
    const busy = await session.sync(Int32Array.of(1), [], ignore);
    assert.ok(!busy.ok && busy.error.kind === "state-invalid", "it is at work");
  }
  const done: readonly NativeGenerated[] = value(await running);
  assert.deepEqual(
    done.map(({ reason }) => (reason === "cancelled" ? "cancelled" : "ended")),
    ["ended", "cancelled", "ended"],
  );
  assert.equal(second.position(), 0, "closed");
  value(await first.sync(Int32Array.of(1, 2, 3), [], ignore));
  value(await third.generate({ ...options, maxTokens: 1 }, ignore));
});

test("together: a batch that waits for its turn ends when all its members are cancelled", async () => {
  const model = await load("reference");
  const [reader, left, right] = await sessionsOf(model, 3);
  assert.ok(reader && left && right);
  const reading = reader.sync(new Int32Array(20_000), [], ignore);
  const waiting = addon.generateTogether([left, right], [options, options], ignore);
  left.cancel();
  right.cancel();
  const ended = await waiting;
  assert.ok(!ended.ok && ended.error.kind === "cancelled");
  reader.cancel();
  await reading;
  value(await addon.generateTogether([left, right], [options, options], ignore));
});

test("together: wrong arguments are refused before anything runs", async () => {
  const model = await load();
  const other = await load();
  const one = await sessionOf(model, 0);
  const two = await sessionOf(model, 1);
  const foreign = await sessionOf(other, 0);
  const loose = addon as unknown as Record<string, (...args: unknown[]) => Promise<NativeResult<unknown>>>;
  const together = async (...args: unknown[]): Promise<NativeResult<unknown>> => {
    const result = await loose["generateTogether"]?.(...args);
    assert.ok(result);
    return result;
  };
  const subject = async (...args: unknown[]): Promise<string> => {
    const result = await together(...args);
    assert.ok(!result.ok);
    return `${result.error.kind} ${result.error.subject}`;
  };
  for (const sessions of [undefined, {}, [], [null], [{}], [model], [one, one], [one, foreign], [Object.create(one)]]) {
    const many = Array.isArray(sessions) ? sessions.map(() => options) : [options];
    assert.equal(await subject(sessions, many, ignore), "argument-invalid sessions");
  }
  for (const wanted of [undefined, {}, [], [options], [options, null]]) {
    assert.equal(await subject([one, two], wanted, ignore), "argument-invalid options");
  }
  assert.equal(
    await subject([one, two], [options, { ...options, maxTokens: -1 }], ignore),
    "argument-invalid maxTokens",
  );
  assert.equal(await subject([one, two], [options, options], "no"), "argument-invalid onTokens");
  two.close();
  assert.equal(await subject([one, two], [options, options], ignore), "state-invalid session");
  value(await together([one], [options], ignore));
});

test("lookup through the host: the same answer with and without, and what it tried is told", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(folder));
  const said: number[][] = [];
  for (const promptLookup of [true, false, undefined]) {
    const ids: number[] = [];
    await engine.sync(promptOf(3_000, "again?"));
    const done = await engine.generate(
      { maxTokens: 60, sampler: greedy, ...(promptLookup === undefined ? {} : { promptLookup }) },
      { onTokens: (batch) => ids.push(...batch.ids) },
    );
    said.push(ids);
    assert.ok(done.accepted <= done.drafted);
    if (promptLookup === false) assert.equal(done.drafted, 0);
  }
  assert.deepEqual(said[0], said[1]);
  assert.deepEqual(said[0], said[2]);
  await engine.stop();
});
