// What the extension and the page say to each other: every message passes unchanged, broken ones are null and nothing throws.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { newTurn } from "../../src/protocol/turn";
import { parseFromQaPage, parseToQaPage } from "../../src/protocol/validateQa";
import type { AskEvent, FromQaPage, ToQaPage } from "../../src/protocol/qa";

const fromPage: readonly FromQaPage[] = [
  { type: "ready" },
  { type: "ask", text: "where is `x`?", effort: "high", exhaustive: false },
  { type: "ask", text: "x".repeat(100_000), effort: "off", exhaustive: true },
  { type: "stop" },
  { type: "openCitation", turn: 1, citation: 0 },
  { type: "openRefusalPlace", turn: 1, place: 4 },
  { type: "readRefusalPlace", turn: 1, place: 0 },
  { type: "chooseFolders" },
  { type: "outlineFolders" },
  { type: "showContext" },
  { type: "showFiles" },
  { type: "openFolder" },
  { type: "newConversation" },
  { type: "openLog" },
  { type: "restartEngine" },
  { type: "manageTrust" },
  { type: "openLink", href: "https://example.org" },
  { type: "copy", text: "code" },
  { type: "violation", directive: "script-src", blocked: "inline" },
];

const plan = {
  budgetTokens: 4,
  readFiles: 1,
  totalFiles: 2,
  readTokens: 3,
  outlinedFiles: 0,
  leftOutFiles: 1,
  overTokens: 5,
};
const citation = {
  id: 0,
  kind: "block",
  path: "a.ts",
  startLine: 1,
  endLine: 2,
  status: "relocated",
  namedPath: "b.ts",
  candidates: 1,
  stale: false,
  offset: 3,
  length: 9,
} as const;
const error = { kind: "context-full", subject: "prompt", expected: "1", actual: "2" } as const;
const events: readonly AskEvent[] = [
  { type: "phase", phase: "reading" },
  { type: "scan", files: 3 },
  { type: "plan", plan },
  { type: "reading", position: 1, promptTokens: 2, tokensPerSecond: 3.5, secondsLeft: 0.5 },
  { type: "shards", shards: { total: 12, first: 3, last: 4, asked: 2, found: 1 } },
  { type: "reasoning", text: "r", tokens: 1 },
  { type: "answer", text: "a" },
  { type: "citations", citations: [citation] },
  { type: "refusal", refusal: { name: "x", places: [{ path: "a.ts", line: 12, wasRead: false }] } },
  {
    type: "stats",
    stats: {
      promptTokens: 1,
      reusedTokens: 0,
      prefillMs: 1.5,
      firstTokenMs: 2.5,
      prefillTokensPerSecond: 10.5,
      generatedTokens: 3,
      reasoningTokens: 1,
      backend: "cpu",
      device: "CPU",
    },
  },
  { type: "done", reason: "complete" },
  { type: "failed", error },
];
const toPage: readonly ToQaPage[] = [
  ...events.map((event): ToQaPage => ({ type: "event", turn: 3, event })),
  { type: "event", turn: 3, event: { type: "failed", error }, failureMessage: "The context is full." },
  { type: "engine", engine: { state: "failed", model: null, error, deviceLoss: null, decodeTokensPerSecond: 12.5 } },
  {
    type: "engine",
    engine: { state: "ready", model: null, error: null, deviceLoss: { error, times: 2, onProcessor: true } },
  },
  { type: "readAhead", reading: null },
  { type: "readAhead", reading: { position: 1, promptTokens: 2, tokensPerSecond: 0, secondsLeft: 0 } },
  { type: "focusQuestion" },
  { type: "focusQuestion", text: "Explain this" },
  {
    type: "state",
    state: {
      workspace: "ready",
      engine: { state: "ready", model: null, error: null, deviceLoss: null },
      coverage: plan,
      changedFiles: 2,
      readAhead: { position: 5, promptTokens: 9, tokensPerSecond: 2.5, secondsLeft: 1.6 },
      scope: ["src"],
      suggestions: ["Where is `x`?"],
      turns: [{ ...newTurn(1, "q", 5), reasoningStartedAtMs: 7, citations: [citation] }],
      activeTurn: null,
    },
  },
];

test("every message comes through unchanged", () => {
  for (const message of fromPage) assert.deepEqual(parseFromQaPage(structuredClone(message)), message);
  for (const message of toPage) assert.deepEqual(parseToQaPage(structuredClone(message)), message);
});

test("a message with a wrong field is no message", () => {
  const wrong: readonly unknown[] = [
    { type: "ask", text: 5, effort: "high", exhaustive: false },
    { type: "ask", text: "q", effort: "max", exhaustive: false },
    { type: "ask", text: "q", exhaustive: false },
    { type: "ask", text: "q", effort: "high" },
    { type: "ask", text: "q", effort: "high", exhaustive: "yes" },
    { type: "openCitation", turn: 1, citation: -1 },
    { type: "openCitation", turn: 2 ** 53, citation: 1 },
    { type: "openCitation", turn: Number.NaN, citation: 1 },
    { type: "openRefusalPlace", turn: 1, place: 5 },
    { type: "openLink", href: "x".repeat(8_193) },
    { type: "openFile", path: "/etc/passwd" },
    { type: "toString" },
    null,
    "ready",
    [],
  ];
  for (const value of wrong) assert.equal(parseFromQaPage(value), null, JSON.stringify(value));
  for (const message of toPage) {
    for (const key of Object.keys(message)) {
      if (key === "failureMessage" || key === "text") continue;
      assert.equal(parseToQaPage({ ...message, [key]: Number.NaN }), null, `${message.type}.${key}`);
    }
  }
});

test("nothing that can be sent makes the parsers throw", () => {
  fc.assert(
    fc.property(fc.anything(), (value) => {
      assert.equal(parseFromQaPage(value), null);
      assert.equal(parseToQaPage(value), null);
    }),
    { numRuns: 5_000 },
  );
});
