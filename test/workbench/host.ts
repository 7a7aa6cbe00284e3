// What the tests share: the extension under test, its workspace, asking it questions, and engines beside its own.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as vscode from "vscode";
import { factsFromWorker } from "../../src/context/factSources";
import { EngineAccess } from "../../src/extension/engineAccess";
import { Repository } from "../../src/extension/repository";
import type { TurnView } from "../../src/protocol/qa";
import { createContextWorker } from "../../src/worker/client";

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

/** What is remembered of a workspace, in a map of the test's. */
export function memoryOf(memory: Map<string, unknown>): vscode.Memento {
  return {
    keys: () => [...memory.keys()],
    get: <T>(key: string, otherwise?: T) => (memory.has(key) ? memory.get(key) : otherwise) as T,
    update: (key, value: unknown) => {
      if (value === undefined) memory.delete(key);
      else memory.set(key, value);
      return Promise.resolve();
    },
  };
}

/** What questions are about in this window, looked into as the extension does it, with a memory of the test's. */
export function repositoryWith(memory: Map<string, unknown>): Repository {
  const worker = createContextWorker({ script: extensionPath("dist", "contextWorker.js") });
  return new Repository(memoryOf(memory), factsFromWorker(worker));
}

/** An engine beside the extension's own, with a log and a storage folder of its own. */
export class OwnEngine {
  readonly home: string;
  readonly storage: string;
  readonly log: vscode.LogOutputChannel;
  readonly engine: EngineAccess;

  constructor(name: string) {
    this.home = fs.mkdtempSync(path.join(os.tmpdir(), `ringside-${name}-`));
    this.storage = path.join(this.home, "storage");
    this.log = vscode.window.createOutputChannel(`Ringside ${name} test`, { log: true });
    this.engine = new EngineAccess(
      {
        engineHost: extensionPath("dist", "engineHost.js"),
        contextWorker: extensionPath("dist", "contextWorker.js"),
        addon: extensionPath("dist", "native", "ringside.node"),
        embeddedModel: extensionPath("media", "nano"),
        pages: vscode.Uri.file(extensionPath("dist", "webview")),
        storage: this.storage,
        snapshots: path.join(this.storage, "snapshots"),
      },
      this.log,
    );
  }

  async dispose(): Promise<void> {
    await this.engine.port.stop();
    this.engine.dispose();
    this.log.dispose();
    fs.rmSync(this.home, { recursive: true, force: true });
  }
}
