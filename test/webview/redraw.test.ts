// The page can vanish at any moment: what a new page draws from one "state" message is what the old one had drawn step by step.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import * as fc from "fast-check";
import type { Browser } from "playwright-core";
import type { AskEvent, TurnView } from "../../src/protocol/qa";
import { applyEvent, newTurn } from "../../src/protocol/turn";
import { launchBrowser, openQaPage } from "./browserPage";
import type { OpenedPage } from "./browserPage";
import { chunks, citation, goodEvents, panelWith, refusalEvents, startMs } from "./panels";

let browser: Browser;
before(async () => {
  browser = await launchBrowser();
});
after(() => browser.close());

interface Drawn {
  readonly tag: string;
  readonly attributes: readonly string[];
  readonly children: readonly (Drawn | string)[];
}

/** What stands in the conversation: neither the order of attributes nor where a text was cut can be seen. */
function drawn({ page }: OpenedPage): Promise<Drawn | null> {
  return page.evaluate(() => {
    const read = (node: Element): Drawn => {
      const children: (Drawn | string)[] = [];
      for (const child of node.childNodes) {
        const last = children.length - 1;
        if (child instanceof Element) children.push(read(child));
        else if (typeof children[last] === "string") children[last] += child.textContent ?? "";
        else if (child.textContent !== "") children.push(child.textContent ?? "");
      }
      const attributes = [...node.attributes].map(({ name, value }) => `${name}=${value}`).sort();
      return { tag: node.tagName, attributes, children };
    };
    const conversation = document.querySelector(".conversation");
    return conversation === null ? null : read(conversation);
  });
}

/** A busy machine draws late; a page that has not shown it by then never will. */
const drawnLimitMs = 30_000;

/** The page draws at its own pace: what is there when nothing changes any more. */
async function finallyDrawn(opened: OpenedPage): Promise<Drawn | null> {
  for (let earlier = JSON.stringify(await drawn(opened)); ;) {
    await opened.page.waitForTimeout(40);
    await opened.settled();
    const now = await drawn(opened);
    if (JSON.stringify(now) === earlier) return now;
    earlier = JSON.stringify(now);
  }
}

async function fresh(opened: OpenedPage, turn: TurnView): Promise<void> {
  await opened.page.reload();
  await opened.send({ type: "state", state: panelWith([turn]) });
}

/** Two pages, made new for each question. */
class Pages {
  readonly #steps: OpenedPage;
  readonly #once: OpenedPage;

  constructor(steps: OpenedPage, once: OpenedPage) {
    this.#steps = steps;
    this.#once = once;
  }

  static async open(): Promise<Pages> {
    return new Pages(await openQaPage(browser, { nowMs: startMs }), await openQaPage(browser, { nowMs: startMs }));
  }

  async check(question: string, events: readonly AskEvent[], pauses: ReadonlySet<number>): Promise<void> {
    await fresh(this.#steps, newTurn(1, question, startMs));
    for (const [index, event] of events.entries()) {
      const message = { type: "event", turn: 1, event } as const;
      if (pauses.has(index)) await this.#steps.send(message);
      else await this.#steps.page.evaluate((data) => window.postMessage(data, "*"), message as unknown);
    }
    await fresh(this.#once, turnOf(question, events));
    for (const endMs = performance.now() + drawnLimitMs; ;) {
      const [once, steps] = [await finallyDrawn(this.#once), await finallyDrawn(this.#steps)];
      if (performance.now() < endMs && !isDeepStrictEqual(steps, once)) continue;
      assert.ok(JSON.stringify(once).includes("ARTICLE"));
      assert.deepEqual(steps, once);
      return;
    }
  }

  async close(): Promise<void> {
    assert.deepEqual([...this.#steps.errors, ...this.#once.errors], []);
    await this.#steps.close();
    await this.#once.close();
  }
}

const turnOf = (question: string, events: readonly AskEvent[]): TurnView =>
  events.reduce((turn, event) => applyEvent(turn, event, startMs), newTurn(1, question, startMs));

test("a whole question, drawn after each event", async () => {
  const pages = await Pages.open();
  await pages.check("Where is `RestartBudget`?", goodEvents, new Set(goodEvents.keys()));
  await pages.close();
});

test("a question cut off at any stage", async () => {
  const pages = await Pages.open();
  for (const end of [0, 2, 6, 8, 12, 30, goodEvents.length - 2]) {
    await pages.check("q", goodEvents.slice(0, end), new Set([1, 3, 7, 20]));
  }
  await pages.check("Where is `drawSlab`?", refusalEvents, new Set([2]));
  await pages.close();
});

const parts = [
  "word ",
  "`code` ",
  "a.ts ",
  "`a.ts` ",
  "\n",
  "\n\n",
  "- item\n",
  "1. one\n",
  "```ts\n",
  "```\n",
  "# head\n",
  "> q\n",
].concat(["**b** ", "| a | b |\n|---|---|\n", "[l](https://h.test) ", "<b>", "\u202e", "    indented\n", "---\n"]);
const answerText = fc.array(fc.constantFrom(...parts), { minLength: 1, maxLength: 40 }).map((list) => list.join(""));

const eventsOf = fc
  .record({ answer: answerText, reasoning: answerText, cut: fc.integer({ min: 1, max: 9 }), ends: fc.boolean() })
  .map(({ answer, reasoning, cut, ends }): AskEvent[] => [
    { type: "phase", phase: "reasoning" },
    ...chunks(reasoning, cut).map((text): AskEvent => ({ type: "reasoning", text, tokens: 1 })),
    { type: "phase", phase: "answering" },
    ...chunks(answer, cut).map((text): AskEvent => ({ type: "answer", text })),
    ...(ends ? endOf(answer) : []),
  ]);

function endOf(answer: string): AskEvent[] {
  const offset = answer.indexOf("`a.ts`");
  const fence = answer.indexOf("```ts");
  const citations = [
    ...(offset < 0
      ? []
      : [citation({ id: 1, kind: "path", offset, length: 6, path: "b.ts", status: "relocated", namedPath: "a.ts" })]),
    ...(fence < 0
      ? []
      : [
          citation({
            id: 2,
            kind: "block",
            offset: fence,
            length: 5,
            path: "c.ts",
            status: "verified",
            startLine: 1,
            endLine: 3,
          }),
        ]),
  ];
  return [
    { type: "citations", citations },
    { type: "done", reason: "complete" },
  ];
}

test("any question, drawn at any moments", async () => {
  const pages = await Pages.open();
  await fc.assert(
    fc.asyncProperty(eventsOf, fc.array(fc.nat(60), { maxLength: 6 }), async (events, pauses) => {
      await pages.check("q", events, new Set(pauses));
    }),
    { numRuns: 20 },
  );
  await pages.close();
});

test("events of an unknown turn, and messages that are none, change nothing", async () => {
  const opened = await openQaPage(browser, { nowMs: startMs, state: panelWith([turnOf("q", goodEvents)]) });
  const earlier = await drawn(opened);
  await opened.send({ type: "event", turn: 99, event: { type: "answer", text: "x" } });
  for (const data of [
    null,
    5,
    "ready",
    { type: "state" },
    { type: "event", turn: 1, event: { type: "answer", text: 5 } },
  ]) {
    await opened.page.evaluate((value) => window.postMessage(value, "*"), data);
  }
  await opened.settled();
  assert.deepEqual(await drawn(opened), earlier);
  assert.deepEqual(opened.errors, []);
  await opened.close();
});
