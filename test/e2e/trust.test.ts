// A folder that nobody trusts, in a real workbench: nothing of it is read until the user asks, an explicit question may read,
// and its settings have no effect before or after.
import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";
import type { Frame } from "playwright-core";
import { runCommand, webviewFrame } from "../../scripts/browser.mjs";
import { at } from "../../scripts/paths.mjs";
import { temporaryFolder } from "./repositories";
import { openWorkbench, type Workbench } from "./workbench";

let folder = "";
let workbench: Workbench;
let panel: Frame;

before(async () => {
  folder = temporaryFolder("restricted");
  // Its .vscode/settings.json sets every one of our keys.
  fs.cpSync(at("test", "workbench", "workspace"), folder, { recursive: true });
  const keys = Object.keys(JSON.parse(fs.readFileSync(`${folder}/.vscode/settings.json`, "utf8")) as object);
  const manifest = JSON.parse(fs.readFileSync(at("package.json"), "utf8")) as {
    contributes: { configuration: { properties: object } };
  };
  assert.deepEqual(keys.sort(), Object.keys(manifest.contributes.configuration.properties).sort());
  workbench = await openWorkbench(folder, { restricted: true, settings: { "ringside.readAhead": "on" } });
  await workbench.page.locator(".statusbar-item", { hasText: "Restricted Mode" }).waitFor({ timeout: 60_000 });
  await runCommand(workbench.page, "Ringside: Focus on Ask View");
  panel = await webviewFrame(workbench.page, ".composer textarea", 60_000);
});

after(async () => {
  await workbench.close();
  fs.rmSync(folder, { recursive: true, force: true });
});

const ownLog = (): string =>
  [...workbench.logs()]
    .filter(([file]) => /ringside\.log$/i.test(file))
    .map(([, text]) => text)
    .join("\n");

/** Which files were opened for reading, by their access times; null where the file system does not keep them. */
function readTimes(): Map<string, number> | null {
  const probe = `${folder}/docs/notes.md`;
  const old = new Date(2020, 0, 1);
  const files = ["src/taxes.ts", "src/orders.ts", "docs/notes.md"].map((file) => `${folder}/${file}`);
  for (const file of files) fs.utimesSync(file, old, fs.statSync(file).mtime);
  fs.readFileSync(probe);
  if (fs.statSync(probe).atimeMs === old.getTime()) return null;
  fs.utimesSync(probe, old, fs.statSync(probe).mtime);
  return new Map(files.map((file) => [file, fs.statSync(file).atimeMs]));
}

test("before a question nothing is read and no engine runs", async () => {
  const times = readTimes();
  await panel.locator(".restricted").waitFor();
  await runCommand(workbench.page, "View: Toggle Secondary Side Bar Visibility");
  await runCommand(workbench.page, "View: Toggle Secondary Side Bar Visibility");
  panel = await webviewFrame(workbench.page, ".restricted", 20_000);
  // Longer than the quiet while after which a trusted folder would be read ahead.
  await workbench.page.waitForTimeout(6_000);
  assert.equal(await panel.locator(".coverage-text").textContent(), "nothing read yet");
  assert.equal(await panel.locator(".suggestion").count(), 0);
  assert.doesNotMatch(ownLog(), /engine process \d+ started/);
  for (const [file, atimeMs] of times ?? []) assert.equal(fs.statSync(file).atimeMs, atimeMs, file);
});

test("an explicit question reads and is answered, by the embedded model", async () => {
  await panel.locator(".composer textarea").fill("Where is `taxRateFor` defined?");
  await panel.locator(".composer textarea").press("Enter");
  await panel.locator("article .stats").waitFor({ timeout: 180_000 });
  assert.equal(await panel.locator(".failure p").count(), 0);
  assert.match((await panel.locator(".coverage-text").textContent()) ?? "", /^read \d+ of \d+ files$/);
  assert.match((await panel.locator("figure .citation").first().textContent()) ?? "", /^src\/taxes\.ts:\d+/);
});
