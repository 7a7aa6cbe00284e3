// The engine process may end at any moment: while it is idle, reads or writes. The user is told, and the next question works.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { createAsker } from "../../src/extension/answering";
import { Conversation } from "../../src/extension/conversation";
import type { EngineAccess } from "../../src/extension/engineAccess";
import { Preparation } from "../../src/extension/preparation";
import { wordError } from "../../src/extension/words";
import type { AskEvent, TurnView } from "../../src/protocol/qa";
import { OwnEngine, repositoryWith } from "./host";

/** The engine processes of this extension host: the one of the test, and the extension's own. */
function enginePids(): number[] {
  return fs
    .readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      try {
        const parent = /^\d+ \(.*\) \S (\d+)/s.exec(fs.readFileSync(`/proc/${String(pid)}/stat`, "utf8"))?.[1];
        return (
          Number(parent) === process.pid &&
          fs.readFileSync(`/proc/${String(pid)}/cmdline`, "utf8").includes("engineHost.js")
        );
      } catch {
        return false;
      }
    });
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + 60_000;
  while (!condition()) {
    assert.ok(performance.now() < deadlineMs, `${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function kill(): void {
  for (const pid of enginePids()) process.kill(pid, "SIGKILL");
}

const question = "Where is `roundToCents` defined?";

describe("death of the engine", () => {
  let own: OwnEngine;
  let engine: EngineAccess;
  let conversation: Conversation;
  const parts: { dispose(): unknown }[] = [];

  before(() => {
    own = new OwnEngine("death");
    ({ engine } = own);
    const repository = repositoryWith(new Map());
    const preparation = new Preparation(repository, engine, own.log);
    conversation = new Conversation(createAsker(repository, engine, preparation), wordError);
    parts.push(preparation, repository);
  });

  after(async () => {
    for (const part of parts) part.dispose();
    await own.dispose();
  });

  /** Kills the engine when the question comes to the given event. */
  async function killAt(type: AskEvent["type"]): Promise<TurnView> {
    let isKilled = false;
    const stop = conversation.listen({
      onTurns: () => undefined,
      onEvent: (_turn, event) => {
        if (event.type !== type || isKilled) return;
        isKilled = true;
        kill();
      },
    });
    try {
      return await conversation.ask(question, "high");
    } finally {
      stop();
      assert.ok(isKilled, `no ${type} event came`);
    }
  }

  const assertDied = ({ phase, failure }: TurnView): void => {
    assert.equal(phase, "failed");
    assert.equal(failure?.kind, "engine-died");
    assert.match(failure.message, /Ask again/);
  };

  it("while it is idle, is not even noticed", async () => {
    await engine.load(engine.folderInUse, () => undefined, new AbortController().signal);
    kill();
    await until(() => enginePids().length === 0, "the engine's end");
    assert.equal((await conversation.ask(question, "high")).phase, "done");
  });

  it("while it reads, is told, and the next question is answered", async () => {
    await engine.port.stop();
    assertDied(await killAt("reading"));
    assert.equal((await conversation.ask(question, "high")).phase, "done");
  });

  it("while it writes, is told with what was written, and the next question is answered", async () => {
    const died = await killAt("reasoning");
    assertDied(died);
    assert.ok(died.reasoning.length > 0);
    assert.equal((await conversation.ask(question, "high")).phase, "done");
  });

  it("is not told when the folder goes first", async () => {
    const asked = conversation.ask(question, "high");
    conversation.fail({ kind: "repository-gone", subject: "shop", expected: "", actual: "" });
    const turn = await asked;
    assert.equal(turn.failure?.message, "The folder shop was closed or removed. Open it again, then ask again.");
    assert.equal((await conversation.ask(question, "high")).phase, "done");
  });
});
