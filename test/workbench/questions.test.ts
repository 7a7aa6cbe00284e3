// The main job inside a real extension host, with the real engine and the embedded model.
import assert from "node:assert/strict";
import * as vscode from "vscode";
import { isFound } from "../../src/protocol/qa";
import type { Citation, TurnView } from "../../src/protocol/qa";
import { ask, linesOf, openFile } from "./host";

const whereIs = (name: string): string => `Where is \`${name}\` defined?`;

/** Each found quote stands in its file at its lines. */
async function checkQuotes({ answer, citations }: TurnView): Promise<Citation[]> {
  const found = citations.filter((citation) => citation.kind === "block" && isFound(citation));
  for (const { path, startLine, endLine, offset, length } of found) {
    const quoted = answer
      .slice(offset, offset + length)
      .split("\n")
      .slice(1, -1);
    const there = (await linesOf(path)).slice(startLine - 1, endLine);
    assert.deepEqual(
      quoted.map((line) => line.trimEnd()),
      there.map((line) => line.trimEnd()),
    );
  }
  return found;
}

describe("questions", () => {
  beforeEach(() => vscode.commands.executeCommand("ringside.newConversation"));

  it("answers with a quote that stands where the citation says", async () => {
    const turn = await ask(whereIs("roundToCents"));
    assert.deepEqual([turn.phase, turn.doneReason, turn.failure], ["done", "complete", null]);
    assert.ok(turn.reasoning.length > 0);
    assert.equal(turn.plan?.readFiles, turn.plan?.totalFiles);
    const found = await checkQuotes(turn);
    const lines = await linesOf("src/currency.ts");
    const line = lines.findIndex((text) => text.includes("function roundToCents")) + 1;
    assert.ok(
      found.some(({ path, startLine, endLine }) => path === "src/currency.ts" && startLine <= line && line <= endLine),
      turn.answer,
    );
  });

  it("reads an unchanged folder only once", async () => {
    const turn = await ask(whereIs("mergeLedgers"));
    assert.equal(turn.phase, "done");
    const { promptTokens = 0, reusedTokens = 0 } = turn.stats ?? {};
    assert.ok(reusedTokens > 0 && promptTokens - reusedTokens < 256, `${reusedTokens} of ${promptTokens}`);
    await checkQuotes(turn);
  });

  it("keeps the conversation", async () => {
    const first = await ask(whereIs("formatAmount"));
    const second = await ask("What does `balanceOnDay` do?");
    assert.equal(second.id, first.id + 1);
    assert.equal(second.phase, "done");
    await checkQuotes(second);
  });

  it("confirms that a name is nowhere", async () => {
    const turn = await ask(whereIs("paintLanternGlyphs"));
    assert.deepEqual(turn.refusal, { name: "paintLanternGlyphs", places: [] });
  });

  it("lists what was read and what was left out, with reasons", async () => {
    await ask(whereIs("roundToCents"));
    await vscode.commands.executeCommand("ringside.showFiles");
    const text = vscode.window.activeTextEditor?.document.getText() ?? "";
    assert.match(text, /^Read \d+ of \d+ text files: [\d,]+ of at most [\d,]+ tokens\n/);
    assert.match(text, / {2}src\/ledger\.ts\n/);
    assert.match(text, /Left out: looks like a secret \(1\)\n +\.env\n/);
    assert.match(text, /Left out: ignored by [^\n]*\n +scratch\.txt\n/);
  });

  it("explains the selection, and finds its uses", async () => {
    const editor = await openFile("src/currency.ts");
    editor.selection = new vscode.Selection(3, 0, 5, 1);
    const explained = await vscode.commands.executeCommand<TurnView>("ringside.explain");
    assert.match(explained.question, /^Explain this code:\n\n```ts\nexport function roundToCents/);
    assert.equal(explained.phase, "done");
    await openFile("src/currency.ts");
    editor.selection = new vscode.Selection(3, 20, 3, 20);
    const uses = await vscode.commands.executeCommand<TurnView>("ringside.findUses");
    assert.equal(uses.question, "Where is `roundToCents` used?");
    assert.equal(uses.phase, "done");
    await checkQuotes(uses);
  });

  it("words a question that cannot be asked", async () => {
    const cases = [
      ["", "question-empty"],
      ["x".repeat(100_000), "question-too-long"],
    ] as const;
    for (const [text, kind] of cases) {
      const turn = await ask(text);
      assert.equal(turn.phase, "failed");
      assert.equal(turn.failure?.kind, kind);
      assert.match(turn.failure.message, /\.$/);
    }
  });

  it("refuses a second question while one runs, and stops the first promptly", async () => {
    const first = ask("What does `balanceOnDay` do?");
    const second = await vscode.commands.executeCommand("ringside.ask", "What does `formatAmount` do?");
    assert.equal(second, undefined);
    const startMs = performance.now();
    await vscode.commands.executeCommand("ringside.stop");
    const turn = await first;
    assert.equal(turn.doneReason, "stopped");
    assert.ok(performance.now() - startMs < 5_000);
    assert.equal((await ask(whereIs("roundToCents"))).phase, "done");
  });
});
