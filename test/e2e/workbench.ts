// Owns: a real workbench with the packaged extension in it, open on a folder: server, browser and profile, made anew for each
// test and removed after it. Must never use flags that scripts/test-profile.mjs does not hold.
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { launchBrowser } from "../../scripts/browser.mjs";
import { at, vsixFile } from "../../scripts/paths.mjs";
import { restrictedFlags, restrictedSettings, testFlags, testSettings } from "../../scripts/test-profile.mjs";
import { installVsix, profileIn, startServer } from "../../scripts/vscode-server.mjs";
import { removeTemporaryFolder, temporaryFolder } from "./repositories";

export interface Workbench {
  readonly page: Page;
  /** What the page's console said; for the report of a failure. */
  readonly console: readonly string[];
  /** The extension host's log files, by name. */
  logs(): ReadonlyMap<string, string>;
  screenshot(name: string): Promise<void>;
  close(): Promise<void>;
}

/** One part of a test of the same workbench; when it fails there is a picture and the log to look at. */
export function partOf(workbench: () => Workbench): (name: string, body: () => Promise<void> | void) => void {
  return (name, body) => {
    test(name, async () => {
      try {
        await body();
      } catch (error) {
        await workbench().screenshot(`failed-${name.replaceAll(/\W+/g, "-")}`);
        for (const [file, text] of workbench().logs()) if (/ringside/i.test(file)) console.log(`${file}\n${text}`);
        throw error;
      }
    });
  };
}

export async function openWorkbench(
  folder: string,
  options: { restricted?: boolean; settings?: object } = {},
): Promise<Workbench> {
  const isRestricted = options.restricted === true;
  const home = temporaryFolder("workbench");
  const profile = profileIn(home, { ...(isRestricted ? restrictedSettings : testSettings), ...options.settings });
  await installVsix(profile, vsixFile);
  const server = await startServer({ profile, flags: isRestricted ? restrictedFlags : testFlags });
  const browser: Browser = await launchBrowser();
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
  const page = await context.newPage();
  const said: string[] = [];
  page.on("console", (message) => said.push(message.text()));
  await page.goto(`${server.url}/?folder=${encodeURIComponent(folder)}`);
  // Keys that are pressed before the workbench stands are lost.
  await page.locator(".part.statusbar .statusbar-item").first().waitFor({ timeout: 60_000 });
  return {
    page,
    console: said,
    logs: () => logsIn(path.join(profile.data, "logs")),
    screenshot: async (name) => {
      await page.screenshot({ path: at("build", "screenshots", `${name}.png`) });
    },
    close: async () => {
      await browser.close();
      await server.stop();
      removeTemporaryFolder(home);
    },
  };
}

function logsIn(folder: string): Map<string, string> {
  if (!fs.existsSync(folder)) return new Map();
  const files = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".log"));
  return new Map(files.map((file) => [file, fs.readFileSync(path.join(folder, file), "utf8")]));
}
