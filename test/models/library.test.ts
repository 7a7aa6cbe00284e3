// The list of model folders and what is told of a folder that is not loaded.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { inspectModelFolder, ModelLibrary } from "../../src/models/library";
import { RingsideFailure } from "../../src/protocol/errors";
import type { ErrorKind } from "../../src/protocol/errors";

const home = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-models-"));
after(() => fs.rmSync(home, { recursive: true, force: true }));

function storeOf(initial: unknown): { read(): unknown; write(folders: readonly string[]): Promise<void> } {
  let list = initial;
  return {
    read: () => list,
    write: (folders) => {
      list = folders;
      return Promise.resolve();
    },
  };
}

test("added folders stand behind the embedded model, once each, until they are removed", async () => {
  const library = new ModelLibrary("/embedded", storeOf(undefined));
  for (const folder of ["/a", "/b", "/a", "/embedded"]) await library.add(folder);
  assert.deepEqual(library.folders(), ["/embedded", "/a", "/b"]);
  await library.remove("/a");
  await library.remove("/embedded");
  assert.deepEqual(library.folders(), ["/embedded", "/b"]);
});

test("a stored list that is none is an empty one", () => {
  for (const stored of [null, 5, "x", { a: 1 }, [1, null, "", "/ok"]]) {
    const folders = new ModelLibrary("/embedded", storeOf(stored)).folders();
    assert.deepEqual(folders, Array.isArray(stored) ? ["/embedded", "/ok"] : ["/embedded"]);
  }
});

function folderWith(name: string, files: Readonly<Record<string, string>>): string {
  const folder = path.join(home, name);
  fs.mkdirSync(folder);
  for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, file), text);
  return folder;
}

test("a whole folder tells its size and context", async () => {
  const config = JSON.stringify({ max_position_embeddings: 32_768 });
  const files = { "config.json": config, "model-1.safetensors": "12345", "model-2.safetensors": "123" };
  assert.deepEqual(await inspectModelFolder(folderWith("whole", files)), { weightBytes: 8, contextTokens: 32_768 });
});

test("a folder that is no model says what is missing", async () => {
  const weights = { "model.safetensors": "x" };
  const cases: readonly (readonly [string, ErrorKind, string])[] = [
    [path.join(home, "absent"), "file-missing", "absent"],
    [folderWith("empty", {}), "file-missing", "config.json"],
    [folderWith("weightless", { "config.json": "{}" }), "file-missing", "*.safetensors"],
    [folderWith("broken", { "config.json": "{", ...weights }), "config-invalid", "config.json"],
    [folderWith("list", { "config.json": "null", ...weights }), "config-invalid", "config.json"],
    [folderWith("huge", { "config.json": " ".repeat(2 << 20), ...weights }), "config-invalid", "config.json"],
  ];
  for (const [folder, kind, subject] of cases) {
    await assert.rejects(inspectModelFolder(folder), (cause) => {
      assert.ok(cause instanceof RingsideFailure);
      assert.equal(cause.error.kind, kind);
      assert.ok(cause.error.subject.endsWith(subject), cause.error.subject);
      return true;
    });
  }
});
