// "Delete all data": whatever was kept is gone, nothing else is, and the next question works.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { createAsker } from "../../src/extension/answering";
import { Conversation } from "../../src/extension/conversation";
import { deleteAllData, forgetDeleted } from "../../src/extension/deleteAllData";
import { Preparation } from "../../src/extension/preparation";
import { ReadAhead } from "../../src/extension/readAhead";
import { wordError } from "../../src/extension/words";
import { memoryOf, OwnEngine, repositoryWith } from "./host";

const question = "Where is `roundToCents` defined?";

function filesIn(folder: string): string[] {
  return fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => !fs.lstatSync(path.join(folder, file)).isDirectory());
}

describe("delete all data", () => {
  it("deletes files, choices, conversation and the engine's memory, and says how much that was", async () => {
    const own = new OwnEngine("delete");
    const kept = new Map<string, unknown>([["ringside.scope", ["src"]]]);
    const global = new Map<string, unknown>([["ringside.modelFolders", ["/models/mini"]]]);
    const repository = repositoryWith(kept);
    const preparation = new Preparation(repository, own.engine, own.log);
    const conversation = new Conversation(createAsker(repository, own.engine, preparation), wordError);
    const readAhead = new ReadAhead({
      mode: () => "on",
      mayRead: () => true,
      onBattery: () => Promise.resolve(false),
      read: () => assert.fail("what was deleted must not be read again unasked"),
      quietMs: 10,
    });
    const elsewhere = path.join(own.home, "elsewhere.txt");
    fs.writeFileSync(elsewhere, "not ours");
    try {
      await repository.setChoices({ "src/taxes.ts": "out" });
      assert.equal((await conversation.ask(question, "high")).phase, "done");
      await own.engine.port.stop(); // What is written in the background is on the disk then.
      const files = filesIn(own.storage);
      assert.notEqual(files.length, 0, "something must have been kept");
      fs.symlinkSync(elsewhere, path.join(own.storage, "link"));
      const bytes = files.reduce((sum, file) => sum + fs.statSync(path.join(own.storage, file)).size, 0);
      readAhead.wake();
      const deleted = await deleteAllData({
        folder: own.storage,
        workspaceState: memoryOf(kept),
        globalState: memoryOf(global),
        ...{ conversation, engine: own.engine, preparation, readAhead, repository },
      });
      assert.ok(deleted >= bytes && deleted < bytes + 4_096, `${String(deleted)} of ${String(bytes)}`);
      assert.deepEqual(filesIn(own.storage), []);
      assert.equal(fs.readFileSync(elsewhere, "utf8"), "not ours");
      assert.deepEqual([repository.scope, repository.choices, conversation.turns], [[], {}, []]);
      assert.deepEqual(global.get("ringside.modelFolders"), ["/models/mini"]);
      assert.equal(own.engine.port.status().state, "stopped");
      const { phase, stats } = await conversation.ask(question, "high");
      assert.deepEqual([phase, stats?.reusedTokens], ["done", 0]);
    } finally {
      for (const part of [readAhead, preparation, repository]) part.dispose();
      await own.dispose();
    }
  });

  it("reaches other workspaces when they are opened, and those only once", () => {
    const global = new Map<string, unknown>([["ringside.deletions", 2]]);
    const other = new Map<string, unknown>([
      ["ringside.deletions", 1],
      ["ringside.choices", { "a.ts": "out" }],
    ]);
    forgetDeleted(memoryOf(other), memoryOf(global));
    assert.deepEqual([...other], [["ringside.deletions", 2]]);
    other.set("ringside.choices", { "b.ts": "full" });
    forgetDeleted(memoryOf(other), memoryOf(global));
    assert.deepEqual(other.get("ringside.choices"), { "b.ts": "full" });
  });
});
