// `npm start` end to end on a machine without a desktop VS Code: an address with a token, Restricted Mode, the panel in sight.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { launchBrowser, webviewFrame } from "../../scripts/browser.mjs";
import { at } from "../../scripts/paths.mjs";
import { removeTemporaryFolder, temporaryFolder, writePackages } from "./repositories";

const startLimitMs = 300_000;
const stopLimitMs = 15_000;

let folder = "";
let profiles = "";
before(() => {
  folder = writePackages();
  profiles = temporaryFolder("profiles");
});
after(() => {
  removeTemporaryFolder(folder);
  removeTemporaryFolder(profiles);
});

test("npm start prints an address that only its token opens, with trust on and the panel shown", async () => {
  const { DISPLAY: _display, WAYLAND_DISPLAY: _wayland, ...environment } = process.env;
  const child = spawn(process.execPath, [at("scripts", "start.mjs"), folder], {
    env: { ...environment, XDG_DATA_HOME: profiles },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const stopHard = setTimeout(() => child.kill("SIGTERM"), startLimitMs);
  const browser = await launchBrowser();
  try {
    const address = await new Promise<URL>((resolve, reject) => {
      let printed = "";
      child.stderr.on("data", (chunk) => {
        printed += String(chunk);
        const match = /http:\/\/\S+/.exec(printed);
        if (match) resolve(new URL(match[0]));
      });
      child.once("exit", () => reject(new Error(printed)));
    });
    assert.equal(address.hostname, "127.0.0.1");
    assert.match(address.searchParams.get("tkn") ?? "", /^[0-9a-f]{48}$/);
    assert.equal(address.searchParams.get("folder"), folder);
    assert.equal((await fetch(address.origin)).status, 403);
    assert.equal((await fetch(`${address.origin}/?tkn=${"0".repeat(48)}`)).status, 403);

    const page = await browser.newPage();
    await page.goto(address.href);
    await page.locator(".statusbar-item", { hasText: "Restricted Mode" }).waitFor({ timeout: 60_000 });
    const panel = await webviewFrame(page, ".composer textarea", 60_000);
    // Nothing is read before the user asks.
    await panel.locator(".restricted").waitFor();
    assert.equal((await panel.locator(".coverage-text").textContent())?.trim(), "nothing read yet");

    child.kill("SIGINT");
    const stopLate = setTimeout(() => child.kill("SIGKILL"), stopLimitMs);
    assert.equal(await exited, 0);
    clearTimeout(stopLate);
    await assert.rejects(fetch(address.origin));
  } finally {
    clearTimeout(stopHard);
    child.kill("SIGTERM");
    await browser.close();
  }
});
