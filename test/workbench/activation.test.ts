// The extension starts, and everything its manifest promises is there.
import assert from "node:assert/strict";
import * as vscode from "vscode";
import { readSettings } from "../../src/extension/settings";
import { extension } from "./host";

interface Manifest {
  readonly contributes: {
    readonly commands: readonly { readonly command: string; readonly title: string; readonly category: string }[];
    readonly views: Readonly<Record<string, readonly { readonly id: string }[]>>;
    readonly configuration: { readonly properties: Readonly<Record<string, { readonly scope: string }>> };
  };
  readonly capabilities: {
    readonly untrustedWorkspaces: { readonly supported: unknown; readonly restrictedConfigurations: readonly string[] };
    readonly virtualWorkspaces: { readonly supported: unknown };
  };
}
const manifest = (): Manifest => extension().packageJSON as Manifest;

describe("activation", () => {
  it("starts quickly", async () => {
    const startMs = performance.now();
    await extension().activate();
    assert.ok(extension().isActive);
    assert.ok(performance.now() - startMs < 5_000);
  });

  it("registers every command of the manifest, under one category", async () => {
    const known = new Set(await vscode.commands.getCommands(true));
    const { commands } = manifest().contributes;
    assert.ok(commands.length >= 15);
    assert.deepEqual(
      commands.filter(({ command }) => !known.has(command)),
      [],
    );
    for (const { title, category } of commands) {
      assert.equal(category, "Ringside");
      assert.doesNotMatch(title, /%|Ringside/);
    }
  });

  it("has its views, which can be shown", async () => {
    const ids = Object.values(manifest().contributes.views).flatMap((views) => views.map(({ id }) => id));
    assert.deepEqual(ids, ["ringside.qa", "ringside.context", "ringside.models"]);
    for (const id of ids) await vscode.commands.executeCommand(`${id}.focus`);
  });

  it("declares what it does in Restricted Mode and in virtual workspaces", () => {
    const { untrustedWorkspaces, virtualWorkspaces } = manifest().capabilities;
    assert.equal(untrustedWorkspaces.supported, "limited");
    assert.equal(virtualWorkspaces.supported, "limited");
    const { properties } = manifest().contributes.configuration;
    assert.deepEqual([...untrustedWorkspaces.restrictedConfigurations].sort(), Object.keys(properties).sort());
    for (const { scope } of Object.values(properties)) assert.equal(scope, "machine");
  });

  it("takes no setting from the workspace", async () => {
    const file = vscode.Uri.joinPath(
      vscode.workspace.workspaceFolders?.[0]?.uri ?? assert.fail(),
      ".vscode/settings.json",
    );
    const written = Buffer.from(await vscode.workspace.fs.readFile(file)).toString("utf8");
    assert.match(written, /hostile-workspace/);
    assert.deepEqual(readSettings(), {
      model: "",
      threads: 0,
      gpuMemoryBytes: 0,
      gpuDevice: -1,
      kvFormat: "bf16",
      snapshotDiskBytes: 4 * 2 ** 30,
      // As the user's settings of these tests say.
      readAhead: "off",
    });
  });
});
