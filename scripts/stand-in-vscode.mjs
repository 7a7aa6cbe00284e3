#!/usr/bin/env node
// Owns: standing in for the desktop executable that @vscode/test-electron starts: same arguments, same exit code, but the
// tests run in the extension host of the VS Code server, with the workbench in Chromium. Must never be used outside tests.
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { format } from "node:util";
import { launchBrowser } from "./browser.mjs";
import { at } from "./paths.mjs";
import { main } from "./process.mjs";
import { profileIn, startServer } from "./vscode-server.mjs";
import { testFlags, testSettings } from "./test-profile.mjs";

/** Longest time a suite may take before it counts as hung. */
const limitMs = 300_000;

const option = (name) => process.argv.find((argument) => argument.startsWith(`--${name}=`))?.slice(name.length + 3);

await main(async () => {
  const folder = process.argv.slice(2).find((argument) => !argument.startsWith("-"));
  const tests = createRequire(import.meta.url).resolve(option("extensionTestsPath"));
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-suite-"));
  // Only with this flag does the workbench take the two paths of a test run.
  const server = await startServer({
    profile: profileIn(home, testSettings),
    flags: [...testFlags, "--enable-smoke-test-driver"],
  });
  const browser = await launchBrowser();
  const remote = (file) => `vscode-remote://127.0.0.1:${server.port}${file}`;
  const payload = [
    ["extensionDevelopmentPath", remote(option("extensionDevelopmentPath"))],
    ["extensionTestsPath", remote(tests)],
    ["skipWelcome", "true"],
  ];
  try {
    const page = await browser.newPage();
    const ended = new Promise((resolve) => {
      void page.exposeFunction("codeAutomationExit", resolve);
      setTimeout(resolve, limitMs, `no result after ${limitMs} ms`).unref();
    });
    await page.exposeFunction("codeAutomationLog", (_type, parts) => console.log(format(...parts)));
    await page.goto(`${server.url}/?folder=${folder}&payload=${encodeURIComponent(JSON.stringify(payload))}`);
    const code = await ended;
    if (code !== 0) {
      fs.mkdirSync(at("build", "screenshots"), { recursive: true });
      await page.screenshot({ path: at("build", "screenshots", "workbench-suite.png") });
      console.log(`The suite ended with ${code}.`);
    }
    process.exitCode = code === 0 ? 0 : 1;
  } finally {
    await browser.close();
    await server.stop();
    fs.rmSync(home, { recursive: true, force: true });
  }
});
process.exit();
