// The workspace as a repository: what is listed and read, and that no path leads out of it.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as vscode from "vscode";
import { WorkspaceRepository } from "../../src/extension/repoFiles";
import { fileUri, workspaceFolder } from "./host";

const folder = (name: string, uri: vscode.Uri, index: number): vscode.WorkspaceFolder => ({ name, uri, index });
const single = (): WorkspaceRepository => new WorkspaceRepository([folder("shop", workspaceFolder(), 0)], undefined);

describe("repository files", () => {
  it("lists, measures and reads by relative paths", async () => {
    const files = single();
    assert.equal(files.name, "shop");
    const root = await files.readDirectory("");
    const kinds = new Map(root.map(({ name, kind }) => [name, kind]));
    assert.equal(kinds.get("src"), "directory");
    assert.equal(kinds.get(".env"), "file");
    const { bytes, modifiedMs } = await files.stat("src/currency.ts");
    const text = Buffer.from(await files.readFile("src/currency.ts"));
    assert.equal(bytes, text.length);
    assert.ok(modifiedMs > 0);
    await assert.rejects(files.stat("src"));
  });

  it("refuses every path that could leave the folder", () => {
    const files = single();
    const outside = ["..", "../x", "src/../../x", "/etc/passwd", "src//x", "./src", "src/.", "src/\0", "a/..", "src/"];
    for (const path of outside) assert.throws(() => files.uri(path), path);
    assert.equal(files.uri("src/currency.ts").toString(), fileUri("src/currency.ts").toString());
    // Characters that mean something in an address are only characters here.
    assert.equal(files.uri("a%2e%2e/b?c#d").fsPath, `${workspaceFolder().fsPath}/a%2e%2e/b?c#d`);
  });

  it("shows a symbolic link as one", async () => {
    const link = fileUri("outside-link").fsPath;
    fs.symlinkSync("/etc", link);
    try {
      const entry = (await single().readDirectory("")).find(({ name }) => name === "outside-link");
      assert.equal(entry?.kind, "symlink");
      await assert.rejects(single().stat("outside-link"));
    } finally {
      fs.unlinkSync(link);
    }
  });

  it("prefixes several folders by their names, which never hide one another", async () => {
    const roots = [
      folder("shop", fileUri("src"), 0),
      folder("shop", fileUri("docs"), 1),
      folder("a/b", fileUri("src"), 2),
    ];
    const files = new WorkspaceRepository(roots, "everything");
    assert.equal(files.name, "everything");
    assert.deepEqual(
      (await files.readDirectory("")).map(({ name }) => name),
      ["shop", "shop-2", "a-b"],
    );
    assert.equal(files.uri("shop-2/notes.md").toString(), fileUri("docs/notes.md").toString());
    assert.ok((await files.readFile("a-b/ledger.ts")).length > 0);
    for (const path of ["other/x", "shop/../../x", ".."]) assert.throws(() => files.uri(path), path);
  });

  it("knows the path of an open document, and of none outside", () => {
    assert.equal(single().pathOf(fileUri("src/ledger.ts")), "src/ledger.ts");
    assert.equal(single().pathOf(vscode.Uri.file("/etc/passwd")), null);
    assert.equal(single().pathOf(vscode.Uri.parse("untitled:x")), null);
  });
});
