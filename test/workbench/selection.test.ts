// Questions about the code in the editor: what is offered, and how the question is put.
import assert from "node:assert/strict";
import * as vscode from "vscode";
import { codeQuestion } from "../../src/extension/selection";
import { fileUri, openFile } from "./host";

/** A provider that registers meanwhile cancels the request. */
async function actionsAt(uri: vscode.Uri, range: vscode.Range): Promise<string[]> {
  for (let tries = 0; ; tries++) {
    try {
      const actions = await vscode.commands.executeCommand<vscode.CodeAction[]>(
        "vscode.executeCodeActionProvider",
        uri,
        range,
      );
      return actions.map(({ title }) => title).filter((title) => title.startsWith("Ringside"));
    } catch (cause) {
      if (tries >= 20 || !String(cause).includes("Canceled")) throw cause;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
}

describe("selection", () => {
  it("offers three actions for a selection, none for a cursor", async () => {
    await openFile("src/ledger.ts");
    const uri = fileUri("src/ledger.ts");
    assert.deepEqual(await actionsAt(uri, new vscode.Range(9, 16, 9, 28)), [
      "Ringside: Explain",
      "Ringside: Find Uses",
      "Ringside: Document",
    ]);
    assert.deepEqual(await actionsAt(uri, new vscode.Range(9, 16, 9, 16)), []);
  });

  it("asks about whole lines in a fence that the code cannot close", async () => {
    const document = await vscode.workspace.openTextDocument({
      language: "markdown",
      content: "a\n  ```x\n  b\n```\nlast",
    });
    assert.equal(
      codeQuestion("Explain this code:", document, new vscode.Range(1, 3, 4, 0)),
      "Explain this code:\n\n````markdown\n  ```x\n  b\n```\n````",
    );
    assert.equal(
      codeQuestion("Explain this code:", document, new vscode.Range(0, 0, 0, 0)),
      "Explain this code:\n\n```markdown\na\n```",
    );
  });

  it("has nothing to ask about empty lines", async () => {
    const document = await vscode.workspace.openTextDocument({ content: "\n  \n" });
    assert.equal(codeQuestion("Explain this code:", document, new vscode.Range(0, 0, 1, 2)), null);
  });
});
