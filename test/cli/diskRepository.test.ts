// A folder as a repository: nothing outside it is read, whatever is asked for.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { symlinkSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import { DiskRepository } from "../../src/cli/diskRepository";
import { folderWith } from "../context/folders";

test("entries, sizes and bytes of the folder", async (t) => {
  const folder = folderWith(t, { "a.ts": "text", "b/c.ts": "é" });
  symlinkSync("a.ts", path.join(folder, "link"));
  spawnSync("mkfifo", [path.join(folder, "pipe")]);
  const repository = new DiskRepository(folder);
  assert.equal(repository.name, path.basename(folder));
  const entries = [...(await repository.readDirectory(""))].sort((a, b) => (a.name < b.name ? -1 : 1));
  assert.deepEqual(entries, [
    { name: "a.ts", kind: "file" },
    { name: "b", kind: "directory" },
    { name: "link", kind: "symlink" },
    { name: "pipe", kind: "other" },
  ]);
  assert.equal((await repository.stat("b/c.ts")).bytes, 2);
  assert.deepEqual(await repository.readFile("b/c.ts"), Buffer.from("é"));
});

test("no link is followed, no pipe is waited for, nothing outside is read", async (t) => {
  const folder = folderWith(t, { "inside/a.ts": "text", "secret.ts": "text" });
  symlinkSync("../secret.ts", path.join(folder, "inside", "link.ts"));
  spawnSync("mkfifo", [path.join(folder, "inside", "pipe")]);
  const repository = new DiskRepository(path.join(folder, "inside"));
  for (const name of ["link.ts", "pipe", "../secret.ts", "/../secret.ts", "missing"]) {
    await assert.rejects(repository.readFile(name), name);
    await assert.rejects(repository.stat(name), name);
  }
  await assert.rejects(repository.readDirectory(".."));
});

test("a relative folder has the name of the folder it is", () => {
  assert.equal(new DiskRepository(".").name, path.basename(process.cwd()));
});
