// The Models view with a real engine of its own: what it says of the embedded model, and of a folder that cannot be loaded.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as vscode from "vscode";
import { EngineAccess } from "../../src/extension/engineAccess";
import { ModelsTree } from "../../src/extension/modelsView";
import type { ModelNode } from "../../src/extension/modelsView";
import { ModelLibrary } from "../../src/models/library";
import { extensionPath } from "./host";

const signal = new AbortController().signal;
const noProgress = (): void => undefined;

describe("models view", () => {
  let home = "";
  let engine: EngineAccess;
  let tree: ModelsTree;
  let log: vscode.LogOutputChannel;
  let embedded = "";

  before(() => {
    home = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-models-"));
    embedded = extensionPath("media", "nano");
    log = vscode.window.createOutputChannel("Ringside test", { log: true });
    engine = new EngineAccess(
      {
        engineHost: extensionPath("dist", "engineHost.js"),
        contextWorker: extensionPath("dist", "contextWorker.js"),
        addon: extensionPath("dist", "native", "ringside.node"),
        embeddedModel: embedded,
        pages: vscode.Uri.file(extensionPath("dist", "webview")),
        storage: home,
        snapshots: path.join(home, "snapshots"),
      },
      log,
    );
    let added: readonly string[] = [home];
    const library = new ModelLibrary(embedded, {
      read: () => added,
      write: (folders) => {
        added = folders;
        return Promise.resolve();
      },
    });
    tree = new ModelsTree(library, engine);
  });

  after(async () => {
    await engine.port.stop();
    tree.dispose();
    engine.dispose();
    log.dispose();
    fs.rmSync(home, { recursive: true, force: true });
  });

  const node = (folder: string): ModelNode => ({ type: "model", folder });
  const facts = async (folder: string): Promise<Map<string, string>> => {
    const children = await tree.getChildren(node(folder));
    return new Map(children.map((child) => (child.type === "fact" ? [child.label, child.value] : ["", ""])));
  };

  it("lists the embedded model, in use, and the added folder", async () => {
    assert.deepEqual(await tree.getChildren(), [node(embedded), node(home)]);
    const item = tree.getTreeItem(node(embedded));
    assert.equal(item.label, "Embedded model");
    assert.equal(item.description, "in use");
    assert.equal(item.contextValue, "model embedded used unloaded");
    assert.match((await facts(embedded)).get("Weights") ?? "", /MB on disk/);
    assert.equal((await facts(embedded)).get("Context"), "32,768 tokens");
  });

  it("says why a folder cannot be loaded, before and after trying", async () => {
    assert.match((await facts(home)).get("Why") ?? "", /config\.json does not exist/);
    fs.writeFileSync(path.join(home, "config.json"), "{}");
    fs.writeFileSync(path.join(home, "model.safetensors"), "no weights");
    await assert.rejects(engine.load(home, noProgress, signal));
    const item = tree.getTreeItem(node(home));
    assert.match(String(item.description), /cannot be loaded/);
    assert.match((await facts(home)).get("Why") ?? "", /\.$/);
  });

  it("tells device, memory and context of the loaded model", async () => {
    await engine.load(embedded, noProgress, signal);
    const item = tree.getTreeItem(node(embedded));
    assert.equal(item.description, "in use, loaded");
    assert.equal(item.contextValue, "model embedded used loaded");
    const known = await facts(embedded);
    assert.match(known.get("Device") ?? "", /\w/);
    assert.match(known.get("Backend") ?? "", /^cpu, \w+, \d+ threads$/);
    assert.match(known.get("Weights") ?? "", /MB in memory$/);
    assert.match(known.get("State") ?? "", /B a token$/);
    const memory = (await tree.getChildren(node(embedded))).find(({ type }) => type === "memory");
    assert.ok(memory !== undefined);
    const memoryItem = tree.getTreeItem(memory);
    assert.match(String(memoryItem.description), /^█+▓+▒+ [\d.]+ MB$/);
    assert.match(memoryItem.accessibilityInformation?.label ?? "", /^Memory: .* with a full context, Weights: /);
    const parts = await tree.getChildren(memory);
    assert.deepEqual(
      parts.map((part) => (part.type === "fact" ? part.label : "")),
      ["Weights", "State", "Keys and values"],
    );
    assert.equal(known.get("Context"), "32,768 tokens");
    assert.equal(known.has("Last measured"), false);
    await engine.port.unload();
    assert.equal(tree.getTreeItem(node(embedded)).description, "in use");
  });
});
