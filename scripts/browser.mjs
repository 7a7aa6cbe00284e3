// Owns: the browser in which tests drive the workbench: finding or installing Chromium, starting it under Playwright, and
// the few gestures on the workbench that every such test needs. Must never be used by `npm start`.
import { chromium } from "playwright-core";
import { ensurePrograms, programFor } from "./system-packages.mjs";

/** Chromium without its own traffic, so that a test sees only the workbench's. */
const quietly = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function launchBrowser() {
  await ensurePrograms(["chromium"]);
  return chromium.launch({ executablePath: programFor("chromium"), headless: true, args: quietly });
}

/**
 * Runs a command of the palette by its visible title. The palette lists what was there when it opened, so it is opened again
 * until the extension has brought the command.
 * @param {import("playwright-core").Page} page
 * @param {string} title
 * @param {number} [timeoutMs]
 */
export async function runCommand(page, title, timeoutMs = 60_000) {
  const input = page.locator(".quick-input-widget input.input");
  const row = page.locator(".quick-input-list .monaco-list-row").filter({ hasText: title }).first();
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    await page.keyboard.press("F1");
    await input.waitFor();
    await input.fill(`>${title}`);
    const isThere = await row.waitFor({ timeout: 3000 }).then(
      () => true,
      () => false,
    );
    if (isThere) break;
    if (performance.now() > deadlineMs) throw new Error(`The palette has no ${title} after ${timeoutMs} ms.`);
    await page.keyboard.press("Escape");
    await input.waitFor({ state: "hidden" });
  }
  await page.keyboard.press("Enter");
}

/**
 * The inner frame of the webview that holds an element for `selector`.
 * @param {import("playwright-core").Page} page
 * @param {string} selector
 * @param {number} [timeoutMs]
 * @returns {Promise<import("playwright-core").Frame>}
 */
export async function webviewFrame(page, selector, timeoutMs = 30_000) {
  const deadlineMs = performance.now() + timeoutMs;
  while (performance.now() < deadlineMs) {
    for (const frame of page.frames()) {
      // A frame may go away while it is asked.
      if (
        (await frame
          .locator(selector)
          .count()
          .catch(() => 0)) > 0
      )
        return frame;
    }
    await page.waitForTimeout(100);
  }
  throw new Error(`No webview shows ${selector} after ${timeoutMs} ms.`);
}
