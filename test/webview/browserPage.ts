// The built Q&A page in a real Chromium, with the message channel of VS Code replaced by a list that the test reads.
// Everything the page asks the network for, every script that should not run and every policy violation is counted.
import fs from "node:fs";
import type { Browser, Page } from "playwright-core";
import { at } from "../../scripts/paths.mjs";
import { buildPage } from "../../src/extension/page";
import type { FromQaPage, PanelState, ToQaPage } from "../../src/protocol/qa";
import { themes } from "./themes";
import type { Theme } from "./themes";

export { launchBrowser } from "../../scripts/browser.mjs";

const origin = "https://page.test";
const nonce = "bm9uY2Ugb2YgdGhlIHRlc3Q";

/** What the page and the hostile texts in it do to the window; kept there because the test runs outside it. */
interface Recorder {
  sent: FromQaPage[];
  memory: unknown;
  violations: string[];
  /** Set by scripts of hostile texts, if one ever runs. */
  hacked?: unknown;
}
declare global {
  interface Window {
    recorder: Recorder;
  }
}

export interface OpenedPage {
  readonly page: Page;
  /** Requests other than the page's own three files. */
  readonly strangeRequests: string[];
  readonly errors: string[];
  send(message: ToQaPage): Promise<void>;
  sent(): Promise<FromQaPage[]>;
  violations(): Promise<string[]>;
  /** Two frames later everything sent so far is drawn. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

export interface OpenOptions {
  readonly theme?: Theme;
  readonly width?: number;
  readonly height?: number;
  readonly scale?: number;
  /** The page's clock stands still there. */
  readonly nowMs?: number;
  readonly state?: PanelState;
}

export async function openQaPage(browser: Browser, options: OpenOptions = {}): Promise<OpenedPage> {
  const { theme = "dark", width = 420, height = 760, scale = 1 } = options;
  const context = await browser.newContext({ viewport: { width, height }, deviceScaleFactor: scale });
  const page = await context.newPage();
  if (options.nowMs !== undefined) await page.clock.setFixedTime(options.nowMs);
  const strangeRequests: string[] = [];
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  const files: Readonly<Record<string, readonly [string, string]>> = {
    "/page.html": ["text/html", builtPage()],
    "/qa.js": ["text/javascript", fs.readFileSync(at("dist", "webview", "qa.js"), "utf8")],
    "/qa.css": ["text/css", fs.readFileSync(at("dist", "webview", "qa.css"), "utf8")],
  };
  await page.route("**", async (route) => {
    const url = new URL(route.request().url());
    const file = url.origin === origin ? files[url.pathname] : undefined;
    if (file !== undefined) return route.fulfill({ contentType: file[0], body: file[1] });
    strangeRequests.push(url.href);
    return route.abort();
  });
  // The compiler of the tests marks functions with this name before they are sent to the page.
  await page.addInitScript("globalThis.__name = (value) => value;");
  await page.addInitScript(prepareWindow, { variables: themes[theme], bodyClass: `vscode-${theme}` });
  await page.goto(`${origin}/page.html`);
  const opened = { page, strangeRequests, errors, ...channel(page), close: () => context.close() };
  if (options.state !== undefined) await opened.send({ type: "state", state: options.state });
  return opened;
}

export function builtPage(): string {
  return buildPage({
    cspSource: origin,
    scriptUri: `${origin}/qa.js`,
    styleUri: `${origin}/qa.css`,
    nonce,
    language: "en",
    title: "Ringside",
  });
}

function channel(page: Page): Pick<OpenedPage, "send" | "sent" | "violations" | "settled"> {
  const settled = (): Promise<void> =>
    page.evaluate(
      () =>
        new Promise<void>((resolve) => {
          requestAnimationFrame(() => requestAnimationFrame(() => resolve()));
        }),
    );
  return {
    send: async (message) => {
      await page.evaluate((data) => window.postMessage(data, "*"), message as unknown);
      await settled();
    },
    sent: () => page.evaluate(() => window.recorder.sent),
    violations: () => page.evaluate(() => window.recorder.violations),
    settled,
  };
}

/** Runs in the page before its own script. */
function prepareWindow({ variables, bodyClass }: { variables: Record<string, string>; bodyClass: string }): void {
  const recorder: Recorder = { sent: [], memory: undefined, violations: [] };
  window.recorder = recorder;
  Object.assign(window, {
    acquireVsCodeApi: () => ({
      postMessage: (message: FromQaPage) => {
        recorder.sent.push(message);
      },
      getState: () => recorder.memory,
      setState: (state: unknown) => {
        recorder.memory = state;
      },
    }),
  });
  document.addEventListener("securitypolicyviolation", (event) => {
    recorder.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
  });
  document.addEventListener("DOMContentLoaded", () => {
    for (const [name, value] of Object.entries(variables)) document.documentElement.style.setProperty(name, value);
    document.body.style.backgroundColor = variables["--vscode-sideBar-background"] ?? "";
    document.body.classList.add(bodyClass);
  });
}
