// The Context view as a person sees it: a repository that is larger than the window, what is read of it, leaving out and taking
// back by mouse and by key, what the panel says of it, reading ahead and its end, and deleting all data. With
// RINGSIDE_SCREENSHOT=FILE the picture of the view goes to that file as well (the README's is made so).
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before } from "node:test";
import type { Locator } from "playwright-core";
import { runCommand, webviewFrame } from "../../scripts/browser.mjs";
import { at } from "../../scripts/paths.mjs";
import { removeTemporaryFolder, writeLargeRepository } from "./repositories";
import { openWorkbench, partOf, type Workbench } from "./workbench";

/** Planning loads the model and counts the tokens of the repository. */
const planLimitMs = 120_000;
const gestureLimitMs = 20_000;

let folder = "";
let workbench: Workbench;

before(async () => {
  ({ folder } = writeLargeRepository());
  workbench = await openWorkbench(folder, { settings: { "ringside.readAhead": "on" } });
  await runCommand(workbench.page, "Ringside: Focus on Context View");
  await row(/^Context: /).waitFor({ timeout: planLimitMs });
});

after(async () => {
  await workbench.close();
  removeTemporaryFolder(folder);
});

const part = partOf(() => workbench);

const view = (): Locator =>
  workbench.page.locator(".pane", { has: workbench.page.getByRole("tree", { name: "Context" }) });
/** By what a screen reader hears of it. */
const row = (label: RegExp): Locator =>
  workbench.page.getByRole("tree", { name: "Context" }).getByRole("treeitem", { name: label });

/** Folds the panel away, or out again. */
async function toggleAsk(): Promise<void> {
  await workbench.page.getByRole("button", { name: /^Ask/ }).first().click();
}

async function expand(label: RegExp): Promise<void> {
  if ((await row(label).getAttribute("aria-expanded")) !== "true")
    await row(label).locator(".monaco-tl-twistie").click();
}

part("the panel says that the repository does not fit, and offers what can be done", async () => {
  const panel = await webviewFrame(workbench.page, ".composer textarea", 60_000);
  const fit = panel.locator(".fit");
  await fit.getByText(/^This folder is about [\d,]+ tokens larger than the model's window: /).waitFor();
  assert.deepEqual(await fit.locator("button").allTextContents(), ["Choose files", "Outline more"]);
  await fit.getByRole("button", { name: "Outline more" }).click();
  await workbench.page.locator(".quick-input-title", { hasText: "Folders to Outline" }).waitFor();
  await workbench.page.keyboard.press("Escape");
});

part("reading ahead is shown with tokens, speed and time left, and stopped when the user says so", async () => {
  const panel = await webviewFrame(workbench.page, ".composer textarea", 60_000);
  const coverage = panel.locator(".coverage-text");
  await coverage
    .getByText(/^reading ahead: [\d,]+ of [\d,]+ tokens · [\d,]+ tok\/s · \d+ (?:s|min) left$/)
    .waitFor({ timeout: planLimitMs });
  await workbench.page.locator(".statusbar-item", { hasText: /Ringside \d+ %/ }).waitFor({ timeout: gestureLimitMs });
  await workbench.screenshot("reading-ahead");
  await panel.locator(".coverage").getByRole("button", { name: "Stop" }).click();
  await coverage.getByText(/^read \d+ of \d+ files$/).waitFor({ timeout: gestureLimitMs });
});

part("it says by how much the repository is past the window, and shows files with tokens and state", async () => {
  // The tree holds only what is seen of it.
  await toggleAsk();
  await view()
    .getByText(/^About [\d,]+ tokens past the window: (?:[\d,]+ outlined, )?[\d,]+ not read\.$/)
    .waitFor({ timeout: gestureLimitMs });
  await expand(/^src, /);
  await row(/^registry\.ts, /).waitFor({ timeout: gestureLimitMs });
  await expand(/^area0, /);
  await row(/^module0\.ts, [\d,]+ tokens, (?:full|outline), read for every question$/).waitFor({
    timeout: gestureLimitMs,
  });
  await workbench.screenshot("context-view");
  const wanted = process.env["RINGSIDE_SCREENSHOT"];
  if (wanted !== undefined) fs.copyFileSync(at("build", "screenshots", "context-view.png"), path.resolve(wanted));
});

part("a file is left out by its button, and taken back by a key", async () => {
  const file = row(/^module0\.ts, /);
  await file.hover();
  await file.getByRole("button", { name: "Leave Out" }).click();
  await row(/^module0\.ts, (?:[\d,]+ tokens, )?left out, left out because you chose so, chosen$/).waitFor({
    timeout: planLimitMs,
  });
  await file.click();
  await workbench.page.locator(".tab.active", { hasText: "module0.ts" }).waitFor({ timeout: gestureLimitMs });
  // The keys still belong to the tree.
  await workbench.page.keyboard.press("Control+Backspace");
  await row(/^module0\.ts, [\d,]+ tokens, (?:full|outline), read for every question$/).waitFor({
    timeout: planLimitMs,
  });
});

part("several files are chosen at once, and only files of one kind are shown", async () => {
  await row(/^module20\.ts, /).click();
  await row(/^module60\.ts, /).click({ modifiers: ["Shift"] });
  await workbench.page.keyboard.press("Delete");
  for (const number of [20, 40, 60]) {
    await row(new RegExp(`^module${String(number)}\\.ts, (?:[\\d,]+ tokens, )?left out, `)).waitFor({
      timeout: planLimitMs,
    });
  }
  await runCommand(workbench.page, "Ringside: Show Outlined Files");
  await row(/^module40\.ts, /).waitFor({ state: "detached", timeout: gestureLimitMs });
  await view().getByText("Not all files are shown.").waitFor({ timeout: gestureLimitMs });
  await runCommand(workbench.page, "Ringside: Show All Files");
  await row(/^module40\.ts, (?:[\d,]+ tokens, )?left out, /).waitFor({ timeout: gestureLimitMs });
});

part("a file goes to .ringsideignore from its menu", async () => {
  await expand(/^area2, /);
  const file = row(/^module2\.ts, /);
  await file.click({ button: "right" });
  await workbench.page.getByRole("menuitem", { name: "Add to .ringsideignore" }).click();
  await row(/^module2\.ts, excluded, ignored by /).waitFor({ timeout: planLimitMs });
  assert.equal(fs.readFileSync(path.join(folder, ".ringsideignore"), "utf8"), "/src/area2/module2.ts\n");
});

part("all data is deleted after one question, and the user is told how much it was", async () => {
  const { page } = workbench;
  await runCommand(page, "Ringside: Delete All Data…");
  const dialog = page.locator(".monaco-dialog-box");
  await dialog.getByText("Delete everything that Ringside keeps of your repositories?").waitFor();
  await workbench.screenshot("delete-all-data");
  await dialog.getByRole("button", { name: "Delete All Data" }).click();
  await page
    .locator(".notification-toast", { hasText: /Deleted [\d.]+ [KMG]?B of what was read/ })
    .waitFor({ timeout: gestureLimitMs });
});
