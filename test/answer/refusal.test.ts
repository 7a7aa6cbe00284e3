// The model's "I could not find" against all files, the budget of the window, the conversation and the suggested questions.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { shareTail, shareWindow } from "../../src/answer/budget";
import { searchedText } from "../../src/answer/preview";
import { checkRefusal, refusedName } from "../../src/answer/refusal";
import { suggestQuestions } from "../../src/answer/suggestions";
import { Scanner } from "../../src/context/scan";
import { contextOf, MemoryRepository } from "../context/folders";

const answers: readonly (readonly [string, string | undefined])[] = [
  ["I could not find `readAll` in this repository.", "readAll"],
  ["I could not find ``a`b`` in this repository.", "a`b"],
  ['I couldn\'t find "file not found" in this repository.', "file not found"],
  ["`readAll` is defined in `a.ts`.", undefined],
  ["The function throws when it could not find the file.", undefined],
];
for (const [answer, name] of answers) test(`refused name in: ${answer}`, () => assert.equal(refusedName(answer), name));

test("a refused name is looked up in read, unread and set-aside files; definitions come first", async () => {
  const scan = await new Scanner(
    new MemoryRepository({
      "a.ts": "\nuse(gate);\n",
      "b.ts": "x\n\nexport function gate() {\n}\n",
      "gen.ts": "// @generated\nconst gate = 1;\n",
      "other.ts": "gates();\n",
      ".env": "gate=1",
    }),
  ).scan();
  const check = await checkRefusal("gate", scan, new Set(["a.ts"]));
  assert.deepEqual(check, {
    name: "gate",
    places: [
      { path: "b.ts", line: 3, wasRead: false },
      { path: "gen.ts", line: 2, wasRead: false },
      { path: "a.ts", line: 2, wasRead: true },
    ],
  });
  assert.deepEqual(await checkRefusal("nowhere", scan, new Set()), { name: "nowhere", places: [] });
});

test("property: the shares of the window never exceed it, whatever question and conversation", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1_024, max: 200_000 }),
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 30_000 }),
      fc.array(fc.integer({ min: 1, max: 5_000 }), { maxLength: 8 }),
      (window, head, question, turns) => {
        const shares = shareWindow(window, head);
        const history = turns.map((tokens, index) => ({ turn: { question: String(index), answer: "" }, tokens }));
        let tail;
        try {
          tail = shareTail(shares, question, history);
        } catch {
          assert.ok(question > shares.budgetTokens / 2);
          return;
        }
        const kept = tail.history.reduce((sum, turn) => sum + (turns[Number(turn.question)] ?? 0), 0);
        assert.ok(head + tail.availableTokens + question + kept + shares.generationTokens <= window);
        assert.ok(tail.availableTokens >= shares.budgetTokens / 4 - 1);
        assert.deepEqual(
          tail.history,
          history.slice(history.length - tail.history.length).map(({ turn }) => turn),
        );
      },
    ),
  );
});

test("three questions from symbols that are defined once, the same each time, from different files", async () => {
  const files = {
    "src/a.ts": "/** Opens. */\nexport function openDatabase() {\n  x();\n  y();\n}\nfunction twice() {}\n",
    "src/b.ts": "export class ConnectionPool {\n}\nfunction twice() {}\n",
    "src/c.ts": "function closeEverything() {\n  a();\n  b();\n}\n",
    "test/d.test.ts": "function helperOfTests() {}\n",
  };
  const context = contextOf(new MemoryRepository(files));
  const plan = await context.plan(await context.scan(), {
    model: "m",
    count: (texts) => Promise.resolve(texts.map(() => 10)),
    budgetTokens: 1_000,
    availableTokens: 1_000,
    question: "",
    scope: [],
    pinned: [],
  });
  assert.deepEqual(suggestQuestions(plan.segments), [
    "Where is `closeEverything` defined?",
    "What does `openDatabase` do?",
    "Show the code of `closeEverything`",
  ]);
  assert.deepEqual(suggestQuestions([]), []);
});

test("a question that names nothing is about what the last one named", () => {
  const history = [
    { question: "Where is `one` defined?", answer: "a" },
    { question: "Where is `two` defined?", answer: "a" },
    { question: "and why?", answer: "a" },
  ];
  assert.equal(searchedText("Where is it used?", history), "Where is it used?\nWhere is `two` defined?");
  assert.equal(searchedText("Where is `three` used?", history), "Where is `three` used?");
  assert.equal(searchedText("Where is it used?", []), "Where is it used?");
});

test("what is too long for a name is none", () => {
  assert.equal(refusedName(`I could not find \`${"x".repeat(200)}\`.`), "x".repeat(200));
  assert.equal(refusedName(`I could not find \`${"x".repeat(5_000)}\`.`), undefined);
});
