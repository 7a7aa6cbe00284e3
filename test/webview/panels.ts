// States of the panel that tests and pictures share: what a user sees at each stage of a question.
import type { AskEvent, Citation, PanelState, PlanSummary, TurnView } from "../../src/protocol/qa";
import { applyEvent, newTurn } from "../../src/protocol/turn";

export const startMs = 1_700_000_000_000;

/** A repository that is larger than the window. */
const overflowing: PlanSummary = {
  budgetTokens: 29_000,
  readFiles: 41,
  totalFiles: 620,
  readTokens: 28_114,
  outlinedFiles: 17,
  leftOutFiles: 579,
  overTokens: 412_300,
};

export const readyPanel: PanelState = {
  workspace: "ready",
  engine: { state: "ready", model: null, error: null, deviceLoss: null },
  coverage: overflowing,
  changedFiles: 0,
  readAhead: null,
  scope: [],
  suggestions: ["Where is `createEngineClient` defined?", "What does `planContext` do?", "Show the code of `wordHits`"],
  turns: [],
  activeTurn: null,
};

const answer = [
  "`RestartBudget` is defined in `src/engine/client.ts`:",
  "",
  "```ts",
  "/** How often a process that ended badly may be started again. */",
  "export class RestartBudget {",
  "  #restartsAtMs: number[] = [];",
  "```",
  "",
  "It counts one restart in `take`, **unless** there were too many of late:",
  "",
  "```ts",
  "    if (this.#restartsAtMs.length >= maxRestarts) return false;",
  "```",
  "",
  "The limit itself is in `src/engine/limits.ts`. See the [notes](https://example.org/restarts) too.",
].join("\n");

export function citation(part: Partial<Citation> & Pick<Citation, "id" | "kind" | "offset" | "length">): Citation {
  return {
    path: "",
    startLine: 0,
    endLine: 0,
    status: "not-found",
    namedPath: "",
    candidates: 0,
    stale: false,
    ...part,
  };
}

function citationsOf(text: string): Citation[] {
  const path = "src/engine/supervisor.ts";
  const named = "src/engine/client.ts";
  const first = text.indexOf("`src/engine/client.ts`");
  const limits = text.indexOf("`src/engine/limits.ts`");
  const block = text.indexOf("```ts");
  const second = text.indexOf("```ts", block + 5);
  const relocated = { path, status: "relocated", namedPath: named, candidates: 1 } as const;
  return [
    citation({
      id: 1,
      kind: "path",
      offset: first,
      length: named.length + 2,
      startLine: 27,
      endLine: 29,
      ...relocated,
    }),
    citation({ id: 2, kind: "block", offset: block, length: 140, startLine: 27, endLine: 29, ...relocated }),
    citation({
      id: 3,
      kind: "block",
      offset: second,
      length: 70,
      path,
      startLine: 34,
      endLine: 34,
      status: "verified",
      candidates: 2,
      stale: true,
    }),
    citation({ id: 4, kind: "path", offset: limits, length: 22, namedPath: "src/engine/limits.ts" }),
  ];
}

const reasoning =
  "The question names `RestartBudget`. I look for its definition.\nIt is a class, and the block begins with the comment above it.\n";

/** All events of a question that goes well. */
export const goodEvents: readonly AskEvent[] = [
  { type: "phase", phase: "scanning" },
  { type: "scan", files: 310 },
  { type: "scan", files: 620 },
  { type: "phase", phase: "loading" },
  { type: "phase", phase: "planning" },
  { type: "plan", plan: overflowing },
  { type: "phase", phase: "reading" },
  { type: "reading", position: 11_900, promptTokens: 29_012, tokensPerSecond: 1_851.4, secondsLeft: 9.24 },
  { type: "phase", phase: "reasoning" },
  ...chunks(reasoning, 9).map((text): AskEvent => ({ type: "reasoning", text, tokens: 3 })),
  { type: "phase", phase: "answering" },
  ...chunks(answer, 7).map((text): AskEvent => ({ type: "answer", text })),
  {
    type: "stats",
    stats: {
      promptTokens: 29_012,
      reusedTokens: 27_960,
      prefillMs: 540,
      firstTokenMs: 811,
      prefillTokensPerSecond: 1_850,
      decodeTokensPerSecond: 210.2,
      generatedTokens: 203,
      reasoningTokens: 45,
      backend: "cpu",
      device: "CPU",
    },
  },
  { type: "phase", phase: "checking" },
  { type: "citations", citations: citationsOf(answer) },
  { type: "done", reason: "complete" },
];

export const refusalEvents: readonly AskEvent[] = [
  { type: "phase", phase: "scanning" },
  { type: "plan", plan: overflowing },
  { type: "phase", phase: "answering" },
  { type: "answer", text: "I could not find `drawSlab` in this repository." },
  { type: "citations", citations: [] },
  {
    type: "refusal",
    refusal: {
      name: "drawSlab",
      places: [
        { path: "native/cpu/slab.cc", line: 12, wasRead: false },
        { path: "docs/notes.md", line: 3, wasRead: true },
      ],
    },
  },
  { type: "done", reason: "complete" },
];

export function chunks(text: string, length: number): string[] {
  return Array.from({ length: Math.ceil(text.length / length) }, (_, index) =>
    text.slice(index * length, (index + 1) * length),
  );
}

/** The turn after the first `count` events, one every 100 ms. */
export function turnAfter(id: number, question: string, events: readonly AskEvent[], count = events.length): TurnView {
  return events
    .slice(0, count)
    .reduce((turn, event, index) => applyEvent(turn, event, startMs + index * 100), newTurn(id, question, startMs));
}

export function panelWith(turns: readonly TurnView[], change: Partial<PanelState> = {}): PanelState {
  const running = turns.find(({ phase }) => phase !== "done" && phase !== "failed");
  return { ...readyPanel, turns, activeTurn: running?.id ?? null, ...change };
}
