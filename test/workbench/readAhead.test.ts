// Reading ahead in a real extension host: the question after it has little left to read, gets the engine at once when it comes
// in the middle, and nothing happens where it is switched off.
import assert from "node:assert/strict";
import { createAsker } from "../../src/extension/answering";
import { Conversation } from "../../src/extension/conversation";
import { Preparation } from "../../src/extension/preparation";
import { ReadAhead } from "../../src/extension/readAhead";
import type { Repository } from "../../src/extension/repository";
import { workspaceState } from "../../src/extension/trust";
import { wordError } from "../../src/extension/words";
import { OwnEngine, repositoryWith } from "./host";

const question = "Where is `roundToCents` defined?";

describe("reading ahead", () => {
  const own = new OwnEngine("read-ahead");
  let repository: Repository;
  let preparation: Preparation;
  let conversation: Conversation;

  before(() => {
    repository = repositoryWith(new Map());
    preparation = new Preparation(repository, own.engine, own.log);
    conversation = new Conversation(createAsker(repository, own.engine, preparation), wordError);
  });

  after(async () => {
    await preparation.stop();
    for (const part of [preparation, repository]) part.dispose();
    await own.dispose();
  });

  function scheduled(mode: "on" | "off"): { readonly readAhead: ReadAhead; readonly done: Promise<boolean> } {
    let tell: (done: boolean) => void = () => undefined;
    const done = new Promise<boolean>((resolve) => (tell = resolve));
    const readAhead = new ReadAhead({
      mode: () => mode,
      mayRead: () => conversation.activeTurn === null && workspaceState() === "ready",
      onBattery: () => Promise.resolve(false),
      read: async () => {
        const isThrough = await preparation.readAhead();
        tell(isThrough);
        return isThrough;
      },
      quietMs: 50,
    });
    return { readAhead, done };
  }

  it("does nothing when it is off", async () => {
    const { readAhead } = scheduled("off");
    readAhead.wake();
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(own.engine.port.status().state, "stopped");
    assert.equal(preparation.coverage, null);
    readAhead.dispose();
  });

  it("gives way to a question at once, which is answered", async () => {
    const { readAhead } = scheduled("on");
    const reading = new Promise<void>((resolve) => {
      const subscription = own.engine.onDidRead((progress) => {
        if (progress === null) return;
        subscription.dispose();
        resolve();
      });
    });
    readAhead.wake();
    await reading;
    const startMs = performance.now();
    await preparation.stop();
    const stoppedMs = performance.now() - startMs;
    console.log(`reading ahead stopped after ${stoppedMs.toFixed(1)} ms`);
    assert.ok(stoppedMs < 1_000, `${String(stoppedMs)} ms`);
    assert.equal(own.engine.reading, null);
    assert.equal((await conversation.ask(question, "high")).phase, "done");
    readAhead.dispose();
  });

  it("leaves a question nothing to read but itself", async () => {
    conversation.clear();
    await own.engine.port.stop();
    const { readAhead, done } = scheduled("on");
    readAhead.wake();
    assert.equal(await done, true);
    const { stats, phase } = await conversation.ask("What does `balanceOnDay` do?", "high");
    assert.equal(phase, "done");
    const { promptTokens = 0, reusedTokens = 0 } = stats ?? {};
    assert.ok(reusedTokens > 0 && promptTokens - reusedTokens < 256, `${reusedTokens} of ${promptTokens}`);
    readAhead.dispose();
  });

  it("tells which read files changed, until they are read again", async () => {
    assert.equal(preparation.noteChange("src/ledger.ts"), true);
    preparation.noteChange("src/ledger.ts");
    preparation.noteChange("nowhere.ts");
    assert.equal(preparation.noteChange("scratch.txt"), false, "an ignored file is nothing to read for");
    assert.equal(preparation.changedFiles, 1);
    assert.equal(await preparation.readAhead(), true);
    assert.equal(preparation.changedFiles, 0);
  });
});
