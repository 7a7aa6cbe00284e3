// The Context view in a real extension host: the tree of what was read, and that what is chosen there is what is read.
import assert from "node:assert/strict";
import type * as vscode from "vscode";
import { ContextTree } from "../../src/extension/contextView";
import type { ContextNode } from "../../src/extension/contextView";
import { withChoice } from "../../src/extension/fileChoices";
import { Preparation } from "../../src/extension/preparation";
import type { Repository } from "../../src/extension/repository";
import { OwnEngine, repositoryWith } from "./host";

describe("context view", () => {
  const own = new OwnEngine("context");
  const memory = new Map<string, unknown>();
  let repository: Repository;
  let preparation: Preparation;
  let tree: ContextTree;

  before(() => {
    repository = repositoryWith(memory);
    preparation = new Preparation(repository, own.engine, own.log);
    tree = new ContextTree(repository, preparation, (message) => assert.fail(message));
  });

  after(async () => {
    await preparation.stop();
    for (const part of [tree, preparation, repository]) part.dispose();
    await own.dispose();
  });

  /** Plans, and waits until the tree shows that plan. */
  async function plan(): Promise<void> {
    const before = tree.summary;
    await preparation.stop();
    const shown = new Promise<void>((resolve) => {
      const subscription = tree.onDidChangeTreeData(() => {
        if (tree.summary === before) return;
        subscription.dispose();
        resolve();
      });
    });
    preparation.start();
    await shown;
  }

  const pathOf = (node: ContextNode): string => ("path" in node ? node.path : node.kind);
  function find(path: string, nodes = tree.getChildren()): ContextNode {
    for (const node of nodes) {
      const nodePath = pathOf(node);
      if (nodePath === path) return node;
      if (node.kind === "folder" && path.startsWith(nodePath)) return find(path, tree.getChildren(node));
    }
    assert.fail(`${path} is not in the tree`);
  }
  const item = (path: string): vscode.TreeItem => tree.getTreeItem(find(path));
  const heard = (path: string): string => item(path).accessibilityInformation?.label ?? "";

  it("is empty until something was planned", async () => {
    assert.deepEqual(tree.getChildren(), []);
    await plan();
    assert.notEqual(tree.getChildren().length, 0);
  });

  it("shows the window, folders with the sum of their files, and what is left out with the reason", () => {
    const names = tree.getChildren().map(pathOf);
    assert.deepEqual(names.slice(0, 4), ["window", ".vscode/", "docs/", "src/"]);
    assert.match(heard("window"), /^Context: [\d,]+ of [\d,]+ tokens, /);
    assert.match(String(item("window").description), /^█+░+$/);
    assert.match(heard("window"), /^Context: [\d,]+ of .* tokens, \d+ full/);
    assert.match(String(item("src/").description), /^[\d,]+ tokens · full$/);
    assert.match(String(item("src/ledger.ts").description), /^[\d,]+ tokens · full$/);
    assert.equal(item("src/ledger.ts").command?.command, "ringside.context.open");
    assert.equal(item(".env").description, "excluded");
    assert.equal(heard(".env"), ".env, excluded, looks like a secret");
    assert.equal(item("src/ledger.ts").contextValue, "file choosable ignorable");
    assert.equal(item(".env").contextValue, "file ignorable");
  });

  it("asks for one file less when that is chosen, remembers it, and takes it back", async () => {
    const before = tree.summary;
    await repository.setChoices(withChoice(repository.choices, ["src/ledger.ts"], "out"));
    assert.match(String(item("src/ledger.ts").description), /wanted: left out$/);
    await plan();
    assert.match(String(item("src/ledger.ts").description), /left out · chosen$/);
    assert.equal(tree.summary?.readFiles, (before?.readFiles ?? 0) - 1);
    assert.match(item("src/ledger.ts").contextValue ?? "", /\bchosen\b/);
    assert.match(item("src/").contextValue ?? "", /\bchosen\b/);
    assert.deepEqual(repositoryWith(memory).choices, { "src/ledger.ts": "out" });
    await repository.setChoices(withChoice(repository.choices, ["src/"], null));
    await plan();
    assert.deepEqual(tree.summary, before);
    assert.equal(memory.has("ringside.choices"), false);
  });

  it("lets a folder speak for what is in it", async () => {
    await repository.setChoices(withChoice({}, ["src/"], "out"));
    await plan();
    assert.equal(item("src/").description, "left out · chosen");
    assert.match(heard("src/taxes.ts"), /chosen, as chosen for src\/$/);
    assert.match(item("src/taxes.ts").contextValue ?? "", /\bchosen\b/);
    await repository.setChoices(withChoice(repository.choices, ["src/taxes.ts"], null));
    await plan();
    assert.match(heard("src/taxes.ts"), /full, read for every question$/);
    assert.match(heard("src/ledger.ts"), /chosen, as chosen for src\/$/);
    await repository.setChoices({});
    await plan();
  });

  it("shows only what the user wants to see", () => {
    tree.shape = { state: "excluded", order: "name" };
    assert.deepEqual(tree.getChildren().map(pathOf).slice(1).sort(), [".env", "scratch.txt"].sort());
    tree.shape = { state: null, order: "name" };
  });
});
