// The conversation without VS Code: one question at a time, stopping, failing, forgetting; and the queue to the page.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Conversation } from "../../src/extension/conversation";
import type { Asker, Question } from "../../src/extension/conversation";
import { batchMs, EventQueue } from "../../src/extension/eventQueue";
import { failure, RingsideFailure } from "../../src/protocol/errors";
import { questionLimitCharacters } from "../../src/protocol/qa";
import type { AskEvent, ToQaPage, TurnView } from "../../src/protocol/qa";
import { applyEvent, newTurn } from "../../src/protocol/turn";

/** An asker that waits for the test to say how it goes on. */
class Script {
  readonly asked: Question[] = [];
  #say: (event: AskEvent) => void = () => undefined;
  #end: () => void = () => undefined;

  readonly ask: Asker = (question, sink, signal) => {
    this.asked.push(question);
    this.#say = sink;
    return new Promise<void>((resolve) => {
      this.#end = resolve;
      signal.addEventListener("abort", () => {
        sink({ type: "done", reason: "stopped" });
        resolve();
      });
    });
  };

  say(...events: readonly AskEvent[]): void {
    for (const event of events) this.#say(event);
  }

  finish(answer: string): void {
    this.say({ type: "answer", text: answer }, { type: "done", reason: "complete" });
    this.#end();
  }
}

const word = ({ kind }: { readonly kind: string }): string => `worded ${kind}`;
const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("an answered question is history for the next, with its pinned files apart", async () => {
  const script = new Script();
  const conversation = new Conversation(script.ask, word);
  const first = conversation.ask("one", "high", ["a.ts"]);
  assert.equal(conversation.activeTurn, 1);
  await tick();
  script.finish("  the answer\n");
  assert.equal((await first).phase, "done");
  assert.equal(conversation.activeTurn, null);
  const second = conversation.ask("two", "low");
  await tick();
  script.finish("b");
  await second;
  assert.deepEqual(script.asked, [
    { text: "one", effort: "high", pinned: ["a.ts"], exhaustive: false, history: [] },
    { text: "two", effort: "low", pinned: [], exhaustive: false, history: [{ question: "one", answer: "the answer" }] },
  ]);
});

test("a second question while one runs is refused and changes nothing", async () => {
  const script = new Script();
  const conversation = new Conversation(script.ask, word);
  const first = conversation.ask("one", "high");
  await assert.rejects(conversation.ask("two", "high"), (cause) => {
    return cause instanceof RingsideFailure && cause.error.kind === "engine-busy";
  });
  await tick();
  script.finish("a");
  await first;
  assert.deepEqual(
    conversation.turns.map(({ question }) => question),
    ["one"],
  );
});

test("stop ends the question as stopped, and what was shown stays", async () => {
  const script = new Script();
  const conversation = new Conversation(script.ask, word);
  const asked = conversation.ask("one", "high");
  await tick();
  script.say({ type: "answer", text: "half" });
  conversation.stop();
  const turn = await asked;
  assert.deepEqual([turn.phase, turn.doneReason, turn.answer], ["done", "stopped", "half"]);
});

test("a failure from outside ends the question at once; what comes later changes nothing", async () => {
  const script = new Script();
  const conversation = new Conversation(script.ask, word);
  const heard: (string | undefined)[] = [];
  conversation.listen({ onTurns: () => undefined, onEvent: (_turn, _event, message) => heard.push(message) });
  const asked = conversation.ask("one", "high");
  await tick();
  conversation.fail(failure("repository-gone", "x").error);
  assert.equal(conversation.activeTurn, null);
  script.say({ type: "answer", text: "late" });
  const turn = await asked;
  assert.deepEqual(turn.failure, { kind: "repository-gone", message: "worded repository-gone" });
  assert.equal(turn.answer, "");
  assert.deepEqual(heard, ["worded repository-gone"]);
});

test("a question waits for the one that was stopped before it to leave the engine", async () => {
  let release: () => void = () => undefined;
  const order: string[] = [];
  const ask: Asker = async ({ text }, sink) => {
    order.push(`begin ${text}`);
    if (text === "one") await new Promise<void>((resolve) => (release = resolve));
    order.push(`end ${text}`);
    sink({ type: "done", reason: "complete" });
  };
  const conversation = new Conversation(ask, word);
  const first = conversation.ask("one", "high");
  await tick();
  conversation.fail(failure("repository-gone").error);
  const second = conversation.ask("two", "high");
  await tick();
  release();
  await Promise.all([first, second]);
  assert.deepEqual(order, ["begin one", "end one", "begin two", "end two"]);
});

test("an asker that rejects fails its own question only", async () => {
  let calls = 0;
  const ask: Asker = (_question, sink) => {
    if (++calls === 1) return Promise.reject(new Error("why"));
    sink({ type: "done", reason: "complete" });
    return Promise.resolve();
  };
  const conversation = new Conversation(ask, word);
  assert.deepEqual((await conversation.ask("one", "high")).failure, { kind: "internal", message: "worded internal" });
  assert.equal((await conversation.ask("two", "high")).phase, "done");
});

test("of a question of ten million characters the page gets the beginning, the asker all", async () => {
  const script = new Script();
  const conversation = new Conversation(script.ask, word);
  const asked = conversation.ask("x".repeat(10_000_000), "high");
  await tick();
  script.say({ type: "failed", error: failure("question-too-long").error });
  assert.equal(script.asked[0]?.text.length, 10_000_000);
  script.finish("");
  assert.equal((await asked).question.length, questionLimitCharacters);
});

test("a new conversation forgets all and stops what runs", async () => {
  const script = new Script();
  const conversation = new Conversation(script.ask, word);
  const asked = conversation.ask("one", "high");
  await tick();
  conversation.clear();
  assert.deepEqual([conversation.turns, conversation.activeTurn], [[], null]);
  await assert.rejects(asked, RingsideFailure);
  const next = conversation.ask("two", "high");
  await tick();
  assert.deepEqual(script.asked.at(-1)?.history, []);
  script.finish("b");
  assert.equal((await next).id, 2);
});

const text = fc.string({ maxLength: 8 });
const event: fc.Arbitrary<AskEvent> = fc.oneof(
  text.map((part): AskEvent => ({ type: "answer", text: part })),
  fc.tuple(text, fc.nat(9)).map(([part, tokens]): AskEvent => ({ type: "reasoning", text: part, tokens })),
  fc.nat(999).map((files): AskEvent => ({ type: "scan", files })),
  fc.nat(999).map((position): AskEvent => ({
    type: "reading",
    position,
    promptTokens: 999,
    tokensPerSecond: 1,
    secondsLeft: 1,
  })),
  fc.constantFrom("scanning", "reading", "reasoning", "answering").map((phase): AskEvent => ({ type: "phase", phase })),
  fc.constantFrom<AskEvent>({ type: "citations", citations: [] }, { type: "done", reason: "complete" }),
);

type EventMessage = Extract<ToQaPage, { type: "event" }>;
const applyAll = (messages: readonly EventMessage[], turn: number): TurnView =>
  messages
    .filter((message) => message.turn === turn)
    .reduce((view, message) => applyEvent(view, message.event, 5), newTurn(turn, "q", 1));

test("batches draw what single events draw, in fewer messages", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 2 }), event), { maxLength: 40 }), (list) => {
      const single = list.map(([turn, item]): EventMessage => ({ type: "event", turn, event: item }));
      const sent: EventMessage[] = [];
      const queue = new EventQueue((message) => sent.push(message));
      for (const message of single) queue.push(message);
      assert.equal(sent.length, 0);
      queue.flush();
      assert.ok(sent.length <= single.length);
      for (const turn of [1, 2]) assert.deepEqual(applyAll(sent, turn), applyAll(single, turn));
    }),
  );
});

test("a batch goes out by itself, and a dropped one does not", async () => {
  const sent: EventMessage[] = [];
  const queue = new EventQueue((message) => sent.push(message));
  queue.push({ type: "event", turn: 1, event: { type: "answer", text: "a" } });
  queue.clear();
  queue.push({ type: "event", turn: 1, event: { type: "answer", text: "b" } });
  queue.push({ type: "event", turn: 1, event: { type: "answer", text: "c" } });
  await new Promise((resolve) => setTimeout(resolve, batchMs * 4));
  assert.deepEqual(sent, [{ type: "event", turn: 1, event: { type: "answer", text: "bc" } }]);
});
