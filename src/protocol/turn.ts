// Owns: how the events of one question become what is drawn, on both sides of the page's wall.
// Must stay pure: no clock, no platform; the caller gives the time and the worded failure.
import type { AskEvent, TurnView } from "./qa";

export function newTurn(id: number, question: string, startedAtMs: number): TurnView {
  return {
    id,
    question,
    phase: "waiting",
    startedAtMs,
    scannedFiles: 0,
    plan: null,
    reading: null,
    shards: null,
    reasoning: "",
    reasoningTokens: 0,
    reasoningMs: 0,
    answer: "",
    citations: [],
    refusal: null,
    stats: null,
    doneReason: null,
    failure: null,
  };
}

/** An ended turn does not change any more: late events of a stopped question must not revive it. */
export function applyEvent(turn: TurnView, event: AskEvent, nowMs: number, failureMessage?: string): TurnView {
  if (turn.phase === "done" || turn.phase === "failed") return turn;
  switch (event.type) {
    case "phase":
      return { ...withReasoningTime(turn, event.phase, nowMs), phase: event.phase };
    case "scan":
      return { ...turn, scannedFiles: event.files };
    case "plan":
      return { ...turn, plan: event.plan };
    case "reading": {
      const { position, promptTokens, tokensPerSecond, secondsLeft } = event;
      return { ...turn, reading: { position, promptTokens, tokensPerSecond, secondsLeft } };
    }
    case "shards":
      return { ...turn, shards: event.shards };
    case "reasoning":
      return {
        ...withReasoningTime(turn, "reasoning", nowMs),
        reasoning: turn.reasoning + event.text,
        reasoningTokens: turn.reasoningTokens + event.tokens,
      };
    case "answer":
      return { ...turn, answer: turn.answer + event.text };
    case "citations":
      return { ...turn, citations: event.citations };
    case "refusal":
      return { ...turn, refusal: event.refusal };
    case "stats":
      return { ...turn, stats: event.stats };
    case "done":
      return { ...withReasoningTime(turn, "done", nowMs), phase: "done", doneReason: event.reason };
    case "failed":
      return {
        ...withReasoningTime(turn, "failed", nowMs),
        phase: "failed",
        failure: { kind: event.error.kind, message: failureMessage ?? event.error.kind },
      };
  }
}

/** Starts the reasoning timer when reasoning begins and advances it for as long as the turn is in that phase. */
function withReasoningTime(turn: TurnView, next: TurnView["phase"], nowMs: number): TurnView {
  const startedAtMs = turn.reasoningStartedAtMs;
  if (startedAtMs === undefined) {
    return next === "reasoning" ? { ...turn, reasoningStartedAtMs: nowMs } : turn;
  }
  // The page may run on another machine than the extension, whose clock set the start: never show a negative time.
  return turn.phase === "reasoning" ? { ...turn, reasoningMs: Math.max(0, nowMs - startedAtMs) } : turn;
}
