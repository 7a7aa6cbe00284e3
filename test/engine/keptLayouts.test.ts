// Layouts on a disk: what is loaded is what was saved, whole, under that name, or nothing; whatever the disk does.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import { clearSnapshots, layoutsIn } from "../../src/engine/client";
import { KeptLayouts, layoutHeaderBytes } from "../../src/engine/keptLayouts";
import { scratchFolder } from "./engineUnderTest";
import { afterCrash, MemoryDisk, randomFrom } from "./snapshotCases";

const contents = ["first", "the second, longer ".repeat(400), "third é\u{1f512}"];

test("a layout is found under its name and repository alone, and cleared with the snapshots", async () => {
  const folder = path.join(scratchFolder("layouts"), "snapshots");
  const layouts = layoutsIn(folder, "/r");
  assert.equal(await layouts.load("a"), undefined);
  for (const content of contents) {
    await layouts.save("a", content);
    assert.equal(await layoutsIn(folder, "/r").load("a"), content);
  }
  await layoutsIn(folder, "/other").save("a", "other");
  assert.equal(await layouts.load("b"), undefined);
  assert.equal(await layouts.load("a"), contents.at(-1));
  assert.equal(fs.statSync(folder).mode & 0o777, 0o700);
  for (const name of fs.readdirSync(folder)) assert.equal(fs.statSync(path.join(folder, name)).mode & 0o777, 0o600);
  assert.equal(await clearSnapshots(folder, "/other"), layoutHeaderBytes + "other".length);
  assert.equal(await layoutsIn(folder, "/other").load("a"), undefined);
  assert.equal(await layouts.load("a"), contents.at(-1));
  assert.ok((await clearSnapshots(folder)) > layoutHeaderBytes);
  assert.deepEqual(fs.readdirSync(folder), []);
});

test("there are never more than a few of them, the least used ones go", async () => {
  const folder = scratchFolder("many");
  const layouts = layoutsIn(folder, "/r");
  const old = new Date(Date.now() - 1e6);
  for (let index = 0; index < 70; index += 1) {
    await layouts.save(String(index), `content ${String(index)}`);
    for (const name of fs.readdirSync(folder)) {
      const file = path.join(folder, name);
      if (fs.statSync(file).mtimeMs > old.getTime() + 1_000 * index) {
        fs.utimesSync(file, old, new Date(old.getTime() + 1_000 * index));
      }
    }
  }
  assert.equal(fs.readdirSync(folder).length, 64);
  assert.equal(await layouts.load("5"), undefined);
  assert.equal(await layouts.load("69"), "content 69");
});

async function saved(content: string): Promise<{ disk: MemoryDisk; name: string; bytes: Uint8Array }> {
  const disk = new MemoryDisk();
  await new KeptLayouts(disk, "/r").save("a", content);
  const [name = ""] = disk.names.keys();
  return { disk, name, bytes: disk.names.get(name)?.bytes ?? new Uint8Array(0) };
}

test("every flipped bit and every cut is detected, and what has too much as well", async () => {
  const { disk, name, bytes } = await saved("let a = 1;");
  const layouts = new KeptLayouts(disk, "/r");
  const wrong = async (change: Uint8Array, what: string): Promise<void> => {
    disk.names.set(name, { bytes: change });
    assert.equal(await layouts.load("a"), undefined, what);
  };
  for (let bit = 0; bit < bytes.byteLength * 8; bit += 1) {
    const flipped = Uint8Array.from(bytes);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    await wrong(flipped, `bit ${String(bit)}`);
  }
  for (let length = 0; length < bytes.byteLength; length += 1) {
    await wrong(bytes.slice(0, length), `${String(length)} bytes`);
  }
  await wrong(Buffer.concat([bytes, Buffer.alloc(1)]), "one byte more");
  disk.names.set(name, { bytes });
  assert.equal(await layouts.load("a"), "let a = 1;");
});

test("crash simulation: 10,000 states of a disk after a power cut hold an old layout, the new one or none", async (t) => {
  const disk = new MemoryDisk();
  const layouts = new KeptLayouts(disk, "/r");
  for (const content of contents) await layouts.save("a", content);
  const random = randomFrom(11);
  const found = new Map<string | undefined, number>();
  for (let run = 0; run < 10_000; run += 1) {
    const left = afterCrash(disk.calls, Math.floor(random() * (disk.calls.length + 1)), random);
    const content = await new KeptLayouts(left, "/r").load("a");
    assert.ok(content === undefined || contents.includes(content));
    found.set(content, (found.get(content) ?? 0) + 1);
  }
  t.diagnostic(`${String(disk.calls.length)} calls; ${[...found.values()].join(", ")} of each, 0 wrong`);
  assert.equal(found.size, contents.length + 1);
  // What was said to be kept is there.
  const last = await new KeptLayouts(afterCrash(disk.calls, disk.calls.length, random), "/r").load("a");
  assert.equal(last, contents.at(-1));
});

test("whichever call of the disk fails: nothing is thrown, and the old layout or the new one is there", async () => {
  for (let failing = 1; ; failing += 1) {
    const { disk } = await saved("old");
    let calls = 0;
    disk.beforeCall = () => {
      calls += 1;
      if (calls === failing) throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
    };
    const layouts = new KeptLayouts(disk, "/r");
    await layouts.save("a", "new");
    await layouts.load("a");
    const reached = calls >= failing;
    disk.beforeCall = () => undefined;
    assert.ok(["old", "new"].includes((await layouts.load("a")) ?? "nothing"), `call ${String(failing)}`);
    if (!reached) break;
  }
});
