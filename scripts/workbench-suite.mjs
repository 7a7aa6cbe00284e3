// Owns: running the Mocha suite of test/workbench/ inside a real extension host. With VSCODE_EXEC set to a desktop VS Code it
// runs there, else in the VS Code server. Must never install anything into a user's editor.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { runTests } from "@vscode/test-electron";
import { bundleForNode } from "./bundle.mjs";
import { at } from "./paths.mjs";
import { isMain, main } from "./process.mjs";

export async function runWorkbenchSuite() {
  const suite = at("build", "workbench-suite", "index.js");
  await bundleForNode("test/workbench/index.ts", suite);
  const workspace = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-workspace-"));
  const fixture = at("test", "workbench", "workspace");
  if (fs.existsSync(fixture)) fs.cpSync(fixture, workspace, { recursive: true });
  try {
    await runTests({
      vscodeExecutablePath: process.env.VSCODE_EXEC ?? at("scripts", "stand-in-vscode.mjs"),
      extensionDevelopmentPath: at(),
      extensionTestsPath: suite,
      launchArgs: [workspace],
    });
  } finally {
    fs.rmSync(workspace, { recursive: true, force: true });
  }
}

if (isMain(import.meta)) void main(runWorkbenchSuite);
