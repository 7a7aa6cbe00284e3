// What the user does in the real page, and what the page tells the extension; keyboard, scrolling, accessibility and themes.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import type { AxeResults } from "axe-core";
import type { Browser } from "playwright-core";
import type { AskEvent, FromQaPage, PanelState } from "../../src/protocol/qa";
import { launchBrowser, openQaPage } from "./browserPage";
import type { OpenedPage } from "./browserPage";
import { citation, goodEvents, panelWith, readyPanel, refusalEvents, startMs, turnAfter } from "./panels";
import { themes } from "./themes";
import type { Theme } from "./themes";

let browser: Browser;
before(async () => {
  browser = await launchBrowser();
});
after(() => browser.close());

const question = "Where is `RestartBudget` defined?";
const done = panelWith([turnAfter(1, question, goodEvents)]);
const refused = panelWith([turnAfter(1, "Where is `drawSlab`?", refusalEvents)]);
const readingEnd = goodEvents.findIndex(({ type }) => type === "reading") + 1;
const reasoningEnd = goodEvents.findIndex(({ type }) => type === "reasoning") + 5;

const readingAhead: PanelState = {
  ...readyPanel,
  readAhead: { position: 11_900, promptTokens: 29_012, tokensPerSecond: 1_851.4, secondsLeft: 9.24 },
};

/** Opens, acts, and gives back what the page said meanwhile but for its greeting. */
async function saidAfter(state: PanelState, act: (opened: OpenedPage) => Promise<unknown>): Promise<FromQaPage[]> {
  const opened = await openQaPage(browser, { state });
  await act(opened);
  await opened.settled();
  const said = (await opened.sent()).filter(({ type }) => type !== "ready");
  assert.deepEqual(opened.errors, []);
  assert.deepEqual(await opened.violations(), []);
  await opened.close();
  return said;
}

const box = ({ page }: OpenedPage) => page.locator(".composer textarea");

test("the page greets once", async () => {
  const opened = await openQaPage(browser, { state: readyPanel });
  assert.deepEqual(await opened.sent(), [{ type: "ready" }]);
  await opened.close();
});

test("Enter asks, Shift+Enter starts a new line", async () => {
  const said = await saidAfter(readyPanel, async (opened) => {
    await box(opened).fill("first");
    await box(opened).press("Shift+Enter");
    await box(opened).pressSequentially("second");
    await box(opened).press("Enter");
    // The toolkit empties the inner element with its next drawing.
    await opened.settled();
    assert.equal(await box(opened).inputValue(), "");
  });
  assert.deepEqual(said, [{ type: "ask", text: "first\nsecond", effort: "high", exhaustive: false }]);
});

test("every file is asked when the box says so, for one question; the keyboard reaches it, and a command sets it", async () => {
  const choice = ({ page }: OpenedPage) => page.getByRole("checkbox", { name: "Ask every file" });
  const said = await saidAfter(readyPanel, async (opened) => {
    await choice(opened).focus();
    await opened.page.keyboard.press("Space");
    assert.ok(await choice(opened).isChecked());
    await box(opened).fill("everywhere");
    await box(opened).press("Enter");
    assert.ok(!(await choice(opened).isChecked()));
    await box(opened).fill("here");
    await box(opened).press("Enter");
    await opened.send({ type: "focusQuestion", exhaustive: true });
    await opened.settled();
    assert.ok(await choice(opened).isChecked());
  });
  assert.deepEqual(
    said.map((message) => message.type === "ask" && [message.text, message.exhaustive]),
    [
      ["everywhere", true],
      ["here", false],
    ],
  );
});

test("a question to every file tells which part is read and asked", async () => {
  const parts = { total: 12, first: 3, last: 3, asked: 0, found: 0 };
  const reading = { position: 40_000, promptTokens: 160_000, tokensPerSecond: 1_500, secondsLeft: 80 };
  const events: readonly AskEvent[] = [
    { type: "phase", phase: "reading" },
    { type: "shards", shards: parts },
    { type: "reading", ...reading },
    { type: "shards", shards: { ...parts, last: 8, asked: 2, found: 1 } },
    { type: "phase", phase: "answering" },
  ];
  const texts = [
    "Reading part 3 of 12 · 25 % · 40,000 of 160,000 tokens · 1,500 tok/s · 80 s left",
    "Asking parts 3–8 of 12 · 1 of 2 had an answer",
  ];
  for (const [end, text] of [
    [3, texts[0]],
    [5, texts[1]],
  ] as const) {
    const opened = await openQaPage(browser, { state: panelWith([turnAfter(1, question, events.slice(0, end))]) });
    await opened.settled();
    assert.equal((await opened.page.locator(".progress p").textContent())?.replaceAll("\u00a0", " "), text);
    await opened.close();
  }
});

test("an empty or overlong question, and one while another runs, stay in the box and are explained", async () => {
  const cases: readonly (readonly [PanelState, string, RegExp])[] = [
    [readyPanel, "  ", /Write a question first/],
    [readyPanel, "x".repeat(20_001), /20,001 characters; at most 20,000/],
    [panelWith([turnAfter(1, question, goodEvents, readingEnd)]), "next", /One question at a time/],
  ];
  for (const [state, text, hint] of cases) {
    const said = await saidAfter(state, async (opened) => {
      await box(opened).fill(text);
      await box(opened).press("Enter");
      assert.match((await opened.page.locator(".hint").textContent()) ?? "", hint);
      assert.equal(await box(opened).inputValue(), text);
    });
    assert.deepEqual(said, []);
  }
});

test("buttons and links say what they are for, by numbers and never by paths", async () => {
  const cases: readonly (readonly [PanelState, string, FromQaPage])[] = [
    [
      readyPanel,
      ".suggestion >> nth=1",
      { type: "ask", text: "What does `planContext` do?", effort: "high", exhaustive: false },
    ],
    [panelWith([turnAfter(7, question, goodEvents, readingEnd)]), ".stop", { type: "stop" }],
    [done, "figure .citation >> nth=1", { type: "openCitation", turn: 1, citation: 3 }],
    [done, ".path .citation >> nth=0", { type: "openCitation", turn: 1, citation: 1 }],
    [refused, ".refusal .citation >> nth=1", { type: "openRefusalPlace", turn: 1, place: 1 }],
    [refused, ".read-it", { type: "readRefusalPlace", turn: 1, place: 0 }],
    [readyPanel, ".coverage .link >> nth=0", { type: "chooseFolders" }],
    [readyPanel, ".coverage .link >> nth=1", { type: "showFiles" }],
    [readyPanel, ".fit .link >> nth=0", { type: "showContext" }],
    [readyPanel, ".fit .link >> nth=1", { type: "outlineFolders" }],
    [readingAhead, ".coverage .link >> nth=2", { type: "stop" }],
    [{ ...readyPanel, workspace: "none" }, ".welcome vscode-button", { type: "openFolder" }],
    [{ ...readyPanel, workspace: "restricted" }, ".restricted .link", { type: "manageTrust" }],
  ];
  for (const [state, selector, expected] of cases) {
    const said = await saidAfter(state, ({ page }) => page.locator(selector).click());
    assert.deepEqual(said, [expected], selector);
  }
});

test("a quote from an earlier copy of a file is told as that, without a link to it, and counted as such", async () => {
  const text = "In `src/limits.ts`:\n\n```ts\nconst limit = 10;\n```";
  const path = "src/limits.ts";
  const offset = text.indexOf("```");
  const citations = [citation({ id: 1, kind: "block", offset, length: text.length - offset, path, status: "earlier" })];
  const events: readonly AskEvent[] = [
    { type: "phase", phase: "answering" },
    { type: "answer", text },
    { type: "citations", citations },
    { type: "done", reason: "complete" },
  ];
  const opened = await openQaPage(browser, { state: panelWith([turnAfter(1, question, events)]) });
  await opened.settled();
  const figure = opened.page.locator("figure.code.earlier");
  assert.equal(
    await figure.locator(".note").textContent(),
    `This stood in an earlier copy of ${path}; it has changed since.`,
  );
  assert.equal(await figure.locator(".citation, .verified").count(), 0);
  assert.match((await opened.page.locator(".stats").textContent()) ?? "", /quotes: 1 from an earlier copy/);
  await opened.close();
});

test("the foot says what the window had no room for, what is read ahead, and what changed since", async () => {
  const cases: readonly (readonly [PanelState, string, string])[] = [
    [
      readyPanel,
      ".fit span",
      "This folder is about 412,300 tokens larger than the model's window: 17 files outlined, 579 files not read.",
    ],
    [readingAhead, ".coverage-text", "reading ahead: 11,900 of 29,012 tokens · 1,851 tok/s · 10 s left"],
    [
      { ...readyPanel, changedFiles: 1 },
      ".coverage-text",
      "read 41 of 620 files · 1 file changed since the model read it",
    ],
    [
      { ...readyPanel, changedFiles: 3 },
      ".coverage-text",
      "read 41 of 620 files · 3 files changed since the model read them",
    ],
  ];
  for (const [state, selector, expected] of cases) {
    const opened = await openQaPage(browser, { state });
    assert.equal(await opened.page.locator(selector).textContent(), expected);
    await opened.close();
  }
});

test("of a repository that fits, and of what is not being read, nothing is said", async () => {
  const coverage = { budgetTokens: 9, readFiles: 2, totalFiles: 2, readTokens: 5, outlinedFiles: 0, leftOutFiles: 0 };
  const opened = await openQaPage(browser, { state: { ...readyPanel, coverage: { ...coverage, overTokens: 0 } } });
  assert.equal(await opened.page.locator(".fit").isVisible(), false);
  assert.equal(await opened.page.locator(".coverage .link").nth(2).isVisible(), false);
  await opened.close();
});

test("code is copied as it is", async () => {
  const said = await saidAfter(done, ({ page }) => page.locator(".copy").first().click());
  assert.equal(said.length, 1);
  assert.ok(said[0]?.type === "copy");
  assert.match(
    said[0].text,
    /^\/\*\* How often[^\n]*\nexport class RestartBudget \{\n {2}#restartsAtMs: number\[\] = \[\];$/,
  );
});

test("an engine failure offers the engine's restart and the log", async () => {
  const failed = turnAfter(1, question, [
    { type: "failed", error: { kind: "engine-died", subject: "", expected: "", actual: "" } },
  ]);
  const said = await saidAfter(panelWith([failed]), async ({ page }) => {
    for (const button of await page.locator(".failure vscode-button").all()) await button.click();
  });
  assert.deepEqual(said, [{ type: "restartEngine" }, { type: "openLog" }]);
});

test("Escape leads back to the question box, and the box can be filled from outside", async () => {
  const opened = await openQaPage(browser, { state: done });
  await opened.page.locator(".conversation").focus();
  await opened.page.keyboard.press("Escape");
  await opened.page.keyboard.type("typed");
  assert.equal(await box(opened).inputValue(), "typed");
  await opened.send({ type: "focusQuestion", text: "from outside" });
  assert.equal(await box(opened).inputValue(), "from outside");
  await opened.close();
});

test("what was being written is there again when the page comes back", async () => {
  const opened = await openQaPage(browser, { state: readyPanel });
  await box(opened).fill("half a ques");
  assert.deepEqual(await opened.page.evaluate(() => window.recorder.memory), {
    draft: "half a ques",
    reasoningOpen: null,
  });
  await opened.close();
});

test("every control can be reached by Tab, in the order of the page", async () => {
  const opened = await openQaPage(browser, { state: done });
  const reached: string[] = [];
  for (let count = 0; count < 30; count++) {
    await opened.page.keyboard.press("Tab");
    const name = await opened.page.evaluate(() => {
      const { activeElement } = document;
      return activeElement === null || activeElement === document.body
        ? ""
        : `${activeElement.tagName.toLowerCase()}.${activeElement.className.split(" ")[0] ?? ""}`;
    });
    if (name === "" && reached.length > 0) break;
    reached.push(name);
  }
  assert.deepEqual(reached, [
    "div.conversation",
    "summary.",
    "button.citation",
    "button.citation",
    "vscode-button.copy",
    "pre.",
    "button.citation",
    "vscode-button.copy",
    "pre.",
    "button.link",
    "button.link",
    "button.link",
    "button.link",
    "button.link",
    "vscode-text-area.",
    "vscode-button.ask",
    "input.",
  ]);
  await opened.close();
});

test("the view follows the end, but never a user who scrolled away", async () => {
  const opened = await openQaPage(browser, {
    height: 400,
    state: panelWith([turnAfter(1, question, goodEvents, goodEvents.length - 4)]),
  });
  const region = opened.page.locator(".conversation");
  const fromEnd = () => region.evaluate((node) => node.scrollHeight - node.scrollTop - node.clientHeight);
  const lines = "A line of the answer.\n\n".repeat(30);
  await opened.send({ type: "event", turn: 1, event: { type: "answer", text: `\n\n${lines}` } });
  await opened.page.waitForTimeout(100);
  assert.ok((await fromEnd()) < 32, "it follows");
  await region.evaluate((node) => node.scrollTo(0, 100));
  await opened.page.locator(".to-end").waitFor();
  await opened.send({ type: "event", turn: 1, event: { type: "answer", text: lines } });
  await opened.page.waitForTimeout(100);
  assert.equal(await region.evaluate((node) => node.scrollTop), 100);
  await opened.page.locator(".to-end").click();
  assert.ok((await fromEnd()) < 32, "it goes to the end");
  await opened.close();
});

test("reasoning is open while it runs, closed after, and a screen reader hears phases, not tokens", async () => {
  const opened = await openQaPage(browser, {
    nowMs: startMs + 5_000,
    state: panelWith([turnAfter(1, question, goodEvents, reasoningEnd)]),
  });
  const details = opened.page.locator(".reasoning");
  assert.equal(await details.getAttribute("open"), "");
  assert.match((await details.locator("summary").textContent()) ?? "", /^Reasoning · 4\.\d s · 15 tokens$/);
  const heard: string[] = [];
  await opened.page.exposeFunction("hear", (text: string) => heard.push(text));
  await opened.page.evaluate(() => {
    const live = document.querySelector(".unseen");
    if (live === null) return;
    const { hear } = window as unknown as { hear: (text: string) => void };
    new MutationObserver(() => hear(live.textContent)).observe(live, {
      childList: true,
      characterData: true,
      subtree: true,
    });
  });
  for (const event of goodEvents.slice(reasoningEnd)) await opened.send({ type: "event", turn: 1, event });
  await opened.page.locator(".stats").waitFor();
  assert.equal(await details.getAttribute("open"), null);
  assert.equal(heard.at(-1), "The answer is complete. Quotes: 1 found, 1 corrected.");
  assert.ok(heard.length <= 3, heard.join(" | "));
  await opened.close();
});

test("a long answer that grows token by token costs time in proportion to its length", async () => {
  const opened = await openQaPage(browser, { state: panelWith([turnAfter(1, question, goodEvents, reasoningEnd)]) });
  await opened.send({ type: "event", turn: 1, event: { type: "phase", phase: "answering" } });
  const part = "Some **words** with `code` in them.\n\n```ts\nconst x = 1;\n```\n\n";
  const drawMs = async (parts: number): Promise<number> =>
    opened.page.evaluate(
      async ({ text, count }) => {
        const startMs = performance.now();
        for (let index = 0; index < count; index++) {
          window.postMessage({ type: "event", turn: 1, event: { type: "answer", text } }, "*");
          await new Promise((resolve) => requestAnimationFrame(resolve));
        }
        return performance.now() - startMs;
      },
      { text: part, count: parts },
    );
  const early = await drawMs(150);
  await drawMs(600);
  const late = await drawMs(150);
  console.log(`150 parts: ${early.toFixed(0)} ms at the beginning, ${late.toFixed(0)} ms after 50 KB`);
  assert.ok(late < Math.max(4 * early, 10_000), `${late} ms after ${early} ms`);
  await opened.close();
});

const states: Readonly<Record<string, PanelState>> = {
  empty: readyPanel,
  restricted: { ...readyPanel, workspace: "restricted", coverage: null, suggestions: [] },
  none: { ...readyPanel, workspace: "none", coverage: null, suggestions: [] },
  readingAhead,
  changed: { ...readyPanel, changedFiles: 3 },
  reading: panelWith([turnAfter(1, question, goodEvents, readingEnd)]),
  reasoning: panelWith([turnAfter(1, question, goodEvents, reasoningEnd)]),
  done,
  refused,
};

test("axe finds nothing in any state and theme", async () => {
  const axe = fs.readFileSync(createRequire(__filename).resolve("axe-core/axe.min.js"), "utf8");
  for (const theme of Object.keys(themes) as Theme[]) {
    for (const [name, state] of Object.entries(states)) {
      const opened = await openQaPage(browser, { theme, state, nowMs: startMs });
      await opened.page.evaluate(axe);
      const results = await opened.page.evaluate(() =>
        (globalThis as unknown as { axe: { run(root: unknown): Promise<AxeResults> } }).axe.run(document),
      );
      assert.ok(results.passes.length > 10);
      const found = results.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
      assert.deepEqual(found, [], `${theme}, ${name}`);
      await opened.close();
    }
  }
});

test("at 200 % nothing is cut off sideways", async () => {
  for (const state of Object.values(states)) {
    // Half the width is what a zoomed page has.
    const opened = await openQaPage(browser, { state, width: 210, height: 380, scale: 2, nowMs: startMs });
    const excess = await opened.page.evaluate(() =>
      [...document.querySelectorAll("body, .conversation, footer")].map((node) => node.scrollWidth - node.clientWidth),
    );
    assert.deepEqual(excess, [0, 0, 0]);
    await opened.close();
  }
});

test("nothing moves when the user asked for less motion", async () => {
  const opened = await openQaPage(browser, { state: done });
  await opened.page.emulateMedia({ reducedMotion: "reduce" });
  const moving = await opened.page.evaluate(
    () =>
      [...document.querySelectorAll("*")].filter((node) => {
        const { transitionDuration, animationName } = getComputedStyle(node, "::-webkit-progress-value");
        return (transitionDuration !== "0s" && node.tagName === "PROGRESS") || animationName !== "none";
      }).length,
  );
  assert.equal(moving, 0);
  await opened.close();
});
