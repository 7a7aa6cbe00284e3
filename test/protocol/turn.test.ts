// The turn reducer: every event, in order, and what it must not do.
import assert from "node:assert/strict";
import { test } from "node:test";
import { applyEvent, newTurn } from "../../src/protocol/turn";
import type { AskEvent, TurnView } from "../../src/protocol/qa";

function play(events: readonly (readonly [nowMs: number, event: AskEvent, message?: string])[]): TurnView {
  return events.reduce(
    (turn, [nowMs, event, message]) => applyEvent(turn, event, nowMs, message),
    newTurn(7, "where?", 1_000),
  );
}

test("a whole question ends with everything that was told", () => {
  const turn = play([
    [1_010, { type: "phase", phase: "scanning" }],
    [1_020, { type: "scan", files: 12 }],
    [1_030, { type: "phase", phase: "planning" }],
    [
      1_040,
      {
        type: "plan",
        plan: {
          budgetTokens: 100,
          readFiles: 2,
          totalFiles: 12,
          readTokens: 90,
          outlinedFiles: 1,
          leftOutFiles: 10,
          overTokens: 400,
        },
      },
    ],
    [1_050, { type: "phase", phase: "reading" }],
    [1_060, { type: "reading", position: 40, promptTokens: 95, tokensPerSecond: 400, secondsLeft: 0.1 }],
    [2_000, { type: "phase", phase: "reasoning" }],
    [2_100, { type: "reasoning", text: "the ", tokens: 1 }],
    [2_300, { type: "reasoning", text: "file", tokens: 2 }],
    [2_500, { type: "phase", phase: "answering" }],
    [2_600, { type: "answer", text: "In " }],
    [2_700, { type: "answer", text: "`a.ts`" }],
    [2_800, { type: "phase", phase: "checking" }],
    [2_900, { type: "refusal", refusal: { name: "x", places: [] } }],
    [3_000, { type: "done", reason: "complete" }],
  ]);
  assert.equal(turn.phase, "done");
  assert.equal(turn.doneReason, "complete");
  assert.equal(turn.scannedFiles, 12);
  assert.equal(turn.plan?.readFiles, 2);
  assert.equal(turn.reading?.position, 40);
  assert.equal(turn.reasoning, "the file");
  assert.equal(turn.reasoningTokens, 3);
  assert.equal(turn.reasoningMs, 500, "the timer stops when the answer begins");
  assert.equal(turn.answer, "In `a.ts`");
  assert.equal(turn.refusal?.name, "x");
});

test("the reasoning timer runs with each part and never below zero", () => {
  const running = play([
    [5_000, { type: "phase", phase: "reasoning" }],
    [5_400, { type: "reasoning", text: "a", tokens: 1 }],
  ]);
  assert.equal(running.reasoningStartedAtMs, 5_000);
  assert.equal(running.reasoningMs, 400);
  assert.equal(applyEvent(running, { type: "done", reason: "stopped" }, 4_000).reasoningMs, 0);
});

test("a failure carries the worded message, or its kind when there is none", () => {
  const error = { kind: "engine-died", subject: "", expected: "", actual: "" } as const;
  assert.deepEqual(play([[0, { type: "failed", error }, "It stopped."]]).failure, {
    kind: "engine-died",
    message: "It stopped.",
  });
  assert.deepEqual(play([[0, { type: "failed", error }]]).failure, { kind: "engine-died", message: "engine-died" });
});

test("an ended turn stays as it is, and no turn is changed in place", () => {
  const start = newTurn(1, "q", 0);
  const frozen = structuredClone(start);
  const done = applyEvent(start, { type: "done", reason: "stopped" }, 5);
  assert.deepEqual(start, frozen);
  assert.equal(applyEvent(done, { type: "answer", text: "late" }, 6), done);
  assert.equal(applyEvent(done, { type: "phase", phase: "answering" }, 6), done);
});
