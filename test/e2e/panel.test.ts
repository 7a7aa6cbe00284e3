// The panel end to end: the packaged extension in a real workbench, the real model, three questions asked by hand. With
// RINGSIDE_SCREENSHOT=FILE the picture of the last answer goes to that file as well (the README's is made so).
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before } from "node:test";
import type { AxeResults } from "axe-core";
import type { Frame, Locator } from "playwright-core";
import { runCommand, webviewFrame } from "../../scripts/browser.mjs";
import { at } from "../../scripts/paths.mjs";
import { linesOf, removeTemporaryFolder, writePackages } from "./repositories";
import { openWorkbench, partOf, type Workbench } from "./workbench";

/** The first question reads the whole repository, on whatever machine this runs. */
const answerLimitMs = 180_000;
const gestureLimitMs = 20_000;

let folder = "";
let workbench: Workbench;
let panel: Frame;

before(async () => {
  folder = writePackages();
  workbench = await openWorkbench(folder);
  await runCommand(workbench.page, "Ringside: Focus on Ask View");
  panel = await webviewFrame(workbench.page, ".composer textarea", 60_000);
});

after(async () => {
  await workbench.close();
  removeTemporaryFolder(folder);
});

const part = partOf(() => workbench);

const turn = (number: number): Locator => panel.locator("article").nth(number - 1);

async function ask(question: string): Promise<void> {
  await panel.locator(".composer textarea").fill(question);
  await panel.locator(".composer textarea").press("Enter");
}

/** The line under a finished answer is drawn last. */
async function waitForEnd(number: number): Promise<void> {
  await turn(number).locator(".stats").waitFor({ timeout: answerLimitMs });
}

async function hideAndShow(): Promise<void> {
  const { page } = workbench;
  const frame = page.locator("iframe.webview");
  await runCommand(page, "View: Toggle Secondary Side Bar Visibility");
  await frame.waitFor({ state: "hidden", timeout: gestureLimitMs });
  await runCommand(page, "View: Toggle Secondary Side Bar Visibility");
  panel = await webviewFrame(page, ".composer textarea", gestureLimitMs);
}

/** A shown place such as `tmp/lib/tmp.js:67–90`. */
function placeOf(text: string): { file: string; startLine: number; endLine: number } {
  const match = /^(.+?):(\d+)(?:–(\d+))?$/.exec(text.trim());
  assert.ok(match, text);
  const [, file = "", start = "", end = start] = match;
  return { file, startLine: Number(start), endLine: Number(end) };
}

/** Clicks the first found quote of an answer and returns its place, after the editor has opened there. */
async function openFirstCitation(number: number): Promise<{ file: string; startLine: number; endLine: number }> {
  const { page } = workbench;
  const citation = turn(number).locator("figure button.citation").first();
  const place = placeOf((await citation.textContent()) ?? "");
  await citation.click();
  const name = path.posix.basename(place.file);
  await page.locator(".tab.active", { hasText: name }).waitFor({ timeout: gestureLimitMs });
  // The cursor stands at an end of the selection; the last line's end may be the start of the next.
  const lines = Array.from({ length: place.endLine - place.startLine + 2 }, (_, index) => place.startLine + index);
  const position = new RegExp(`Ln (?:${lines.join("|")}),`);
  await page.locator(".statusbar-item", { hasText: position }).waitFor({ timeout: gestureLimitMs });
  return place;
}

part(
  "a suggested question reads the repository, survives hiding the view, and its citation opens the file",
  async () => {
    const suggestion = panel.locator(".suggestion").first();
    await suggestion.waitFor({ timeout: gestureLimitMs });
    const question = (await suggestion.textContent()) ?? "";
    await suggestion.click();
    await turn(1)
      .locator(".progress", { hasText: /Reading repository \d+ %/ })
      .waitFor({ timeout: 60_000 });
    await hideAndShow();
    assert.equal(await turn(1).locator(".question").textContent(), question);
    await waitForEnd(1);
    assert.match((await turn(1).locator(".reasoning summary").textContent()) ?? "", /Reasoned for .+ · \d+ tokens/);
    await openFirstCitation(1);
  },
);

part("a second question reads only what is new, and hiding the view in its answer loses nothing", async () => {
  await ask("Where is `resolveCommand` defined?");
  await turn(2).locator(".reasoning").waitFor({ timeout: answerLimitMs });
  await hideAndShow();
  await waitForEnd(2);
  assert.equal(await panel.locator("article").count(), 2);
  const { file, startLine, endLine } = await openFirstCitation(2);
  const shown = (await turn(2).locator("figure code").first().textContent()) ?? "";
  const there = linesOf(folder, file).slice(startLine - 1, endLine);
  assert.equal(shown.trimEnd(), there.join("\n").trimEnd());
  await workbench.page
    .locator(".view-line", { hasText: there[0]?.trim() ?? "" })
    .first()
    .waitFor();
});

part("a name that does not exist is refused and the refusal is checked", async () => {
  await ask("Where is `paintLanternGlyphs` defined?");
  await waitForEnd(3);
  assert.equal(await turn(3).locator("figure button.citation").count(), 0);
  await turn(3).locator(".refusal", { hasText: "paintLanternGlyphs" }).waitFor();
});

part("a file that changes after it was read is told", async () => {
  fs.appendFileSync(path.join(folder, "cross-spawn/index.js"), "\n// changed\n");
  await panel
    .locator(".coverage-text", { hasText: "1 file changed since the model read it" })
    .waitFor({ timeout: gestureLimitMs });
});

part("the panel is accessible", async () => {
  await panel.evaluate(fs.readFileSync(createRequire(__filename).resolve("axe-core/axe.min.js"), "utf8"));
  const results = await panel.evaluate(() =>
    (globalThis as unknown as { axe: { run(root: unknown): Promise<AxeResults> } }).axe.run(document),
  );
  assert.ok(results.passes.length > 10);
  assert.deepEqual(
    results.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`),
    [],
  );
});

part("nothing broke the content security policy", () => {
  const refused = workbench.console.filter((text) => /content security policy/i.test(text));
  assert.deepEqual(refused, []);
  const logged = [...workbench.logs()].filter(([, text]) => /violation/i.test(text)).map(([file]) => file);
  assert.deepEqual(logged, []);
});

part("a picture is kept", async () => {
  const { page } = workbench;
  await runCommand(page, "View: Toggle Primary Side Bar Visibility");
  // A wider panel, as a user would drag it.
  const bar = await page.locator(".part.auxiliarybar").boundingBox();
  assert.ok(bar);
  await page.mouse.move(bar.x - 2, bar.y + bar.height / 2);
  await page.mouse.down();
  await page.mouse.move(bar.x - 250, bar.y + bar.height / 2, { steps: 8 });
  await page.mouse.up();
  await turn(2).locator("summary").click();
  await turn(2).locator(".question").scrollIntoViewIfNeeded();
  await page.mouse.move(5, 450);
  await workbench.screenshot("panel");
  const wanted = process.env["RINGSIDE_SCREENSHOT"];
  if (wanted !== undefined) fs.copyFileSync(at("build", "screenshots", "panel.png"), path.resolve(wanted));
  assert.ok(fs.statSync(at("build", "screenshots", "panel.png")).size > 10_000);
});
