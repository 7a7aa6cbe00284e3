// Hostile answers in the real page: nothing of them runs, asks the network for anything or becomes more than text and buttons.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { newTurn } from "../../src/protocol/turn";
import type { PanelState, TurnView } from "../../src/protocol/qa";
import { launchBrowser, openQaPage } from "./browserPage";
import { hostileAnswers } from "./hostileMarkdown";
import { panelWith, startMs } from "./panels";

let browser: Browser;
before(async () => {
  browser = await launchBrowser();
});
after(() => browser.close());

const turnWith = (id: number, answer: string): TurnView => ({
  ...newTurn(id, answer.slice(0, 200), startMs),
  phase: "done",
  doneReason: "complete",
  reasoning: answer.slice(0, 10_000),
  answer,
});

const batch = 100;

test(`nothing of ${String(hostileAnswers.length)} hostile answers runs or leaves the page`, async () => {
  assert.ok(hostileAnswers.length >= 990);
  const opened = await openQaPage(browser);
  const allowed = new Set(
    [
      "P",
      "BR",
      "HR",
      "EM",
      "STRONG",
      "S",
      "CODE",
      "PRE",
      "BLOCKQUOTE",
      "UL",
      "OL",
      "LI",
      "H3",
      "H4",
      "H5",
      "H6",
      "SPAN",
    ]
      .concat(["TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "DIV", "BUTTON", "FIGURE", "FIGCAPTION", "VSCODE-BUTTON"])
      .concat(["svg", "path"]),
  );
  const tags = new Set<string>();
  for (let start = 0; start < hostileAnswers.length; start += batch) {
    const turns = hostileAnswers
      .slice(start, start + batch)
      .map((answer, index) => turnWith(start + index + 1, answer));
    await opened.send({ type: "state", state: panelWith(turns) });
    await opened.page.locator(`#question-${String(start + turns.length)}`).waitFor({ state: "attached" });
    const seen = await opened.page.evaluate(() => {
      const nodes = [...document.querySelectorAll("article *")];
      return {
        answers: document.querySelectorAll(".answer").length,
        tags: [...new Set(nodes.filter((node) => node.closest(".answer") !== null).map((node) => node.tagName))],
        handlers: nodes.flatMap((node) =>
          node.getAttributeNames().filter((name) => /^on|^style$|^src|href/.test(name)),
        ),
      };
    });
    assert.equal(seen.answers, turns.length);
    assert.deepEqual(seen.handlers, []);
    for (const tag of seen.tags) tags.add(tag);
  }
  assert.deepEqual(
    [...tags].filter((tag) => !allowed.has(tag) && tag !== "DIV"),
    [],
  );
  assert.equal(await opened.page.evaluate(() => window.recorder.hacked), undefined);
  assert.deepEqual(opened.strangeRequests, []);
  assert.deepEqual(await opened.violations(), []);
  assert.deepEqual(opened.errors, []);
  assert.deepEqual(
    (await opened.sent()).filter(({ type }) => type !== "ready"),
    [],
  );
  await opened.close();
});

test("links go to the extension, and only web addresses are links", async () => {
  const answer =
    "[notes](https://example.org/a?b) [x](command:x) [y](file:///etc/passwd) ![z](https://example.org/i.png)";
  const opened = await openQaPage(browser, { state: panelWith([turnWith(1, answer)]) });
  const links = opened.page.locator(".answer button.link");
  assert.deepEqual(await links.allTextContents(), ["notes (example.org)", "z (example.org)"]);
  await links.first().click();
  assert.deepEqual((await opened.sent()).at(-1), { type: "openLink", href: "https://example.org/a?b" });
  assert.equal(opened.page.url(), "https://page.test/page.html");
  await opened.close();
});

test("characters that are not seen are shown by their number", async () => {
  const opened = await openQaPage(browser, {
    state: panelWith([turnWith(1, "a\u202eb `c\u200bd`\n\n```\ne\u{e0041}f\n```")]),
  });
  const marks = await opened.page.locator(".answer .hidden-character").allTextContents();
  assert.deepEqual(marks, ["U+202E", "U+200B", "U+E0041"]);
  await opened.close();
});

/** From the message to the first block on a new page. */
async function msToDraw(state: PanelState): Promise<number> {
  const opened = await openQaPage(browser);
  const drawnMs = await opened.page.evaluate(async (drawn) => {
    const startMs = performance.now();
    window.postMessage({ type: "state", state: drawn }, "*");
    while (document.querySelector(".answer .block") === null) await new Promise((resolve) => setTimeout(resolve, 1));
    return performance.now() - startMs;
  }, state);
  await opened.close();
  return drawnMs;
}

test("an answer of 100 KB is drawn at 50 ms for each 10 KB, or in proportion where 10 KB take longer", async () => {
  const mixed = hostileAnswers.filter((answer) => answer.length < 5_000).join("\n\n");
  /** The quickest of three: other work that shares the machine is not the page's. */
  const quickestMs = async (characters: number): Promise<number> => {
    const text = mixed.repeat(Math.ceil(characters / mixed.length)).slice(0, characters);
    let drawnMs = Infinity;
    for (let round = 0; round < 3; round += 1)
      drawnMs = Math.min(drawnMs, await msToDraw(panelWith([turnWith(1, text)])));
    return drawnMs;
  };
  const [shortMs, longMs] = [await quickestMs(10_000), await quickestMs(100_000)];
  console.log(`10 KB drawn in ${shortMs.toFixed(0)} ms, 100 KB in ${longMs.toFixed(0)} ms`);
  // A slow or busy machine draws the short answer slowly too; twice for what differs between two moments.
  assert.ok(longMs < Math.max(500, 2 * 10 * shortMs), `${longMs} ms after ${shortMs} ms`);
});
