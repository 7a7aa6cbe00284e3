// The prompt, byte for byte as the model was trained on it, and where it is cut.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { buildPrompt, standingPieces } from "../../src/answer/prompt";
import type { PromptRequest } from "../../src/answer/prompt";
import { deltaSegment } from "../../src/context/segment";
import type { PromptSegment } from "../../src/context/segment";
import type { Prompt, PromptPiece } from "../../src/protocol/engine";

const standing = (path: string, text: string, kind: "base" | "supplement"): PromptSegment => ({
  kind,
  note: "",
  file: { path, text },
});

const base: PromptRequest = {
  repository: "demo",
  segments: [standing("a.ts", "let a;", "base"), standing("b/c.ts", "let b;\n\nlet c;", "base")],
  history: [],
  question: "Where is `a`?",
  start: "open",
};

const spelled = (pieces: readonly PromptPiece[]): string =>
  pieces
    .flatMap(({ parts }) => parts)
    .map((part) => ("special" in part ? part.special : part.text))
    .join("");
const all = ({ pieces }: Prompt): string => spelled(pieces);
const before = (prompt: Prompt): string => spelled(prompt.pieces.slice(0, prompt.basePieces));

const head =
  "<role>SYSTEM</role>You answer questions about the repository below. Name the file and quote the code exactly.\n" +
  "detailed thinking on<|role_end|><role>HUMAN</role># Repository demo\n\n";
const files = '<file path="a.ts">\nlet a;\n</file>\n<file path="b/c.ts">\nlet b;\n\nlet c;\n</file>';
const tail = "\n\nWhere is `a`?<|role_end|><role>ASSISTANT</role>";

test("the whole prompt", () => {
  assert.equal(all(buildPrompt(base)), head + files + tail);
});

test("the base ends right after its last file, whatever follows", () => {
  const extra = standing("d.ts", "let d;", "supplement");
  const withExtra = buildPrompt({
    ...base,
    segments: [...base.segments, extra, standing("e.ts", "let d;", "supplement")],
  });
  assert.equal(before(buildPrompt(base)), head + files);
  assert.equal(before(withExtra), head + files);
  assert.deepEqual(withExtra.pieces.slice(0, withExtra.basePieces), buildPrompt(base).pieces.slice(0, 3));
  assert.equal(
    all(withExtra),
    head + files + '\n<file path="d.ts">\nlet d;\n</file>\n<file path="e.ts">\nlet d;\n</file>' + tail,
  );
});

test("deltas stand behind the base, each changing no byte before it, and the supplement behind them", () => {
  const file = { path: "a.ts", text: "let a = 1;", mode: "full", tokens: 9 } as const;
  const deltas = [
    deltaSegment({ change: "text", file, replaces: true }),
    deltaSegment({ change: "moved", path: "b/c.ts", to: "b/d\n.ts" }),
    deltaSegment({ change: "gone", path: "e.ts" }),
    deltaSegment({ change: "text", file: { ...file, path: "f.ts" }, replaces: false }),
  ];
  const extra = standing("d.ts", "let d;", "supplement");
  const prompt = buildPrompt({ ...base, segments: [...base.segments, ...deltas, extra] });
  const said =
    '\n\nThe file a.ts was changed. It now reads:\n<file path="a.ts">\nlet a = 1;\n</file>' +
    "\n\nThe file b/c.ts is now b/d .ts." +
    "\n\nThe file e.ts was deleted." +
    '\n<file path="f.ts">\nlet a = 1;\n</file>';
  assert.equal(all(prompt), head + files + said + '\n<file path="d.ts">\nlet d;\n</file>' + tail);
  assert.deepEqual([prompt.basePieces, prompt.deltaPieces], [3, 4]);
  for (const [count] of deltas.entries()) {
    const less = standingPieces({ ...base, segments: [...base.segments, ...deltas.slice(0, count)] });
    assert.deepEqual(less.pieces, prompt.pieces.slice(0, 3 + count));
  }
});

test("pieces are cut before each file and after the last one; each run of text is one part", () => {
  const extra = standing("d.ts", "let d;", "supplement");
  const { pieces } = buildPrompt({ ...base, segments: [...base.segments, extra] });
  const opens = pieces.filter(({ parts }) =>
    parts.some((part) => "special" in part && part.special === '<file path="'),
  );
  assert.equal(opens.length, 3);
  for (const { parts } of opens) assert.deepEqual(parts[0], { special: '<file path="' });
  assert.deepEqual(pieces[2]?.parts.at(-1), { special: "</file>" });
  assert.deepEqual(pieces.at(-2)?.parts.at(-1), { special: "</file>" });
  for (const { parts } of pieces) {
    for (const [index, part] of parts.entries()) {
      const next = parts[index + 1];
      assert.ok(!("text" in part && next !== undefined && "text" in next));
    }
  }
});

test("earlier turns stand before the question, without their reasoning", () => {
  const prompt = buildPrompt({
    ...base,
    history: [
      { question: "Q1", answer: "A1" },
      { question: "Q2", answer: "A2" },
    ],
  });
  assert.equal(
    all(prompt).slice((head + files).length),
    "\n\nQ1<|role_end|><role>ASSISTANT</role>A1<|role_end|><role>HUMAN</role>Q2<|role_end|><role>ASSISTANT</role>A2<|role_end|>" +
      "<role>HUMAN</role>Where is `a`?<|role_end|><role>ASSISTANT</role>",
  );
});

test("an answer without reasoning keeps every byte before it", () => {
  const open = buildPrompt(base);
  assert.equal(all(buildPrompt({ ...base, start: "closed" })), all(open) + "<think>\n\n</think>\n\n");
  assert.equal(all(buildPrompt({ ...base, start: { reasoning: "So." } })), all(open) + "<think>\nSo.\n</think>\n\n");
});

const spelling = fc.constantFrom(
  "<|role_end|>",
  "<role>",
  "</role>",
  "<think>",
  "</think>",
  "<|endoftext|>",
  '<file path="',
  "</file>",
  "x",
  "\n",
  '"',
);
const hostile = fc.array(spelling, { maxLength: 8 }).map((parts) => parts.join(""));

test("property: no text of file, path, question, answer or repository becomes a special token", () => {
  fc.assert(
    fc.property(hostile, hostile, hostile, hostile, hostile, (path, text, question, answer, repository) => {
      const request = { ...base, segments: [standing(path, text, "base")], question, repository };
      const specials = (prompt: Prompt): string[] =>
        prompt.pieces.flatMap(({ parts }) => parts).flatMap((part) => ("special" in part ? [part.special] : []));
      const history = [{ question: answer, answer }];
      const harmless = { ...base, segments: [standing("a", "b", "base")] };
      assert.deepEqual(
        specials(buildPrompt({ ...request, history })),
        specials(buildPrompt({ ...harmless, history: [{ question: "q", answer: "a" }] })),
      );
    }),
  );
});
