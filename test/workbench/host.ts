// What the tests share: the extension under test, its workspace, and asking it questions.
import assert from "node:assert/strict";
import * as path from "node:path";
import * as vscode from "vscode";
import type { TurnView } from "../../src/protocol/qa";

export const extensionId = "ringside.ringside";

export function extension(): vscode.Extension<unknown> {
  const found = vscode.extensions.getExtension(extensionId);
  assert.ok(found !== undefined, `${extensionId} is not installed`);
  return found;
}

export function workspaceFolder(): vscode.Uri {
  const folder = vscode.workspace.workspaceFolders?.[0];
  assert.ok(folder !== undefined);
  return folder.uri;
}

export function fileUri(relative: string): vscode.Uri {
  return vscode.Uri.joinPath(workspaceFolder(), relative);
}

export async function linesOf(relative: string): Promise<string[]> {
  const bytes = await vscode.workspace.fs.readFile(fileUri(relative));
  return Buffer.from(bytes).toString("utf8").split("\n");
}

/** Through the command, as a user's key binding would. */
export async function ask(question: string): Promise<TurnView> {
  const turn = await vscode.commands.executeCommand<TurnView | undefined>("ringside.ask", question);
  assert.ok(turn !== undefined, "the question was not asked");
  return turn;
}

export async function openFile(relative: string): Promise<vscode.TextEditor> {
  return vscode.window.showTextDocument(fileUri(relative));
}

export const extensionPath = (...parts: readonly string[]): string => path.join(extension().extensionPath, ...parts);
