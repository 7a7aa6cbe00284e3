// Several processes keep snapshots in one folder: together they stay within the budget, whatever becomes of one of them, and a disk
// that is really full costs the keeping and nothing else.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { FolderDisk } from "../../src/engine/snapshotDisk";
import { SnapshotStore } from "../../src/engine/snapshotStore";
import { bundle, scratchFolder } from "./engineUnderTest";
import { MemoryDisk, fileOf, isSame, smallModel, tokensOf, wholeOf } from "./snapshotCases";
import type { StoreReport } from "./storeProcess";

const limitBytes = 60_000;
const program = bundle("test/engine/storeProcess.ts", path.join(scratchFolder("store-process"), "storeProcess.js"));

function start(folder: string, seed: number, puts: number, limit = limitBytes): ChildProcess {
  return spawn(process.execPath, [program, folder, String(limit), String(seed), String(puts)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

async function reportOf(child: ChildProcess): Promise<StoreReport> {
  let out = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (out += text));
  const code = await new Promise((resolve) => child.once("close", resolve));
  assert.equal(code, 0);
  return JSON.parse(out) as StoreReport;
}

/**
 * What the disk holds: a file that has its length but no content yet takes no room. Only from a look during which no name came or
 * went: else a file may be counted under two names.
 */
function bytesNow(folder: string): number | null {
  const names = fs.readdirSync(folder).sort();
  let bytes = 0;
  for (const name of names) {
    const stat = fs.statSync(path.join(folder, name), { throwIfNoEntry: false });
    if (stat !== undefined) bytes += Math.min(stat.size, stat.blocks * 512);
  }
  return fs.readdirSync(folder).sort().join() === names.join() ? bytes : null;
}

/** The most that was seen in the folder until `until` is done, and how often it was looked at. */
async function watch(
  folder: string,
  until: Promise<unknown>,
): Promise<{ readonly most: number; readonly looks: number }> {
  let [most, looks, isDone] = [0, 0, false];
  const stop = (): void => void (isDone = true);
  void until.then(stop, stop);
  const done = (): boolean => isDone;
  while (!done()) {
    const bytes = bytesNow(folder);
    if (bytes !== null) {
      most = Math.max(most, bytes);
      looks += 1;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { most, looks };
}

test("three processes that write at a time stay within one budget, and read nothing wrong", async (t) => {
  const folder = scratchFolder("shared-budget");
  const reports = Promise.all([1, 2, 3].map((seed) => reportOf(start(folder, seed, 100))));
  const { most, looks } = await watch(folder, reports);
  t.diagnostic(`at most ${String(most)} of ${String(limitBytes)} bytes in ${String(looks)} looks`);
  assert.ok(looks > 100 && most > limitBytes / 2);
  assert.ok(most <= limitBytes, String(most));
  for (const { kept, found, wrong, told } of await reports) {
    assert.ok(kept > 100 && found > 100, JSON.stringify({ kept, found }));
    assert.equal(wrong, 0);
    assert.deepEqual(told, []);
  }
});

test("what a killed process was writing counts no more as soon as another one needs the room", async () => {
  const folder = scratchFolder("killed-writer");
  for (let seed = 1; seed <= 10; seed += 1) {
    const child = start(folder, seed, 10_000);
    const ended = new Promise((resolve) => child.once("close", resolve));
    // Until it has a file under way, which is when it is killed.
    const isWriting = (): boolean => fs.readdirSync(folder).some((name) => name.includes(`.tmp.${String(child.pid)}.`));
    while (!isWriting()) await new Promise((resolve) => setImmediate(resolve));
    child.kill("SIGKILL");
    await ended;
  }
  // As large as the budget: everything else has to go for it.
  const tokens = tokensOf("large", 64 * 23);
  const { name, content } = fileOf(smallModel, tokens, 0);
  const store = await SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: 20_000 });
  assert.equal(await store.put(smallModel, name, content), true);
  const found = await store.get(smallModel, name.key);
  assert.ok(found !== null && isSame(found, wholeOf(smallModel, tokens)));
  assert.deepEqual(fs.readdirSync(folder), [`${name.key}.snapshot`]);
});

test("a state that another process used lately stays, and one that none used goes", async () => {
  const folder = scratchFolder("used-there");
  const open = (): Promise<SnapshotStore> => SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: 20_000 });
  const [one, other] = await Promise.all([open(), open()]);
  const states = ["x", "y", "z"].map((line) => fileOf(smallModel, tokensOf(line, 640), 0));
  const [first, second, third] = states as [(typeof states)[0], (typeof states)[0], (typeof states)[0]];
  const longAgo = new Date(Date.now() - 7 * 24 * 60 * 60 * 1_000);
  for (const { name, content } of [first, second]) {
    assert.equal(await other.put(smallModel, name, content), true);
    fs.utimesSync(path.join(folder, `${name.key}.snapshot`), longAgo, longAgo);
  }
  // The one process learns of both as they are, then the other one uses the first.
  const reopened = await open();
  assert.notEqual(await other.get(smallModel, first.name.key), null);
  assert.equal(await reopened.put(smallModel, third.name, third.content), true);
  const left = fs.readdirSync(folder).sort();
  assert.deepEqual(left, [first, third].map(({ name }) => `${name.key}.snapshot`).sort());
  assert.equal(one.bytes, 0);
});

test("deleting what is kept while a process writes ends nothing: it goes on with what it reads next", async () => {
  const folder = scratchFolder("deleted");
  const told: string[] = [];
  const disk = new FolderDisk(folder);
  const store = await SnapshotStore.open({ disk, limitBytes, onDisabled: (code) => told.push(code) });
  const tokens = tokensOf("a", 640);
  const [begin, end] = [fileOf(smallModel, tokens.slice(0, 320), 0), fileOf(smallModel, tokens, 320)];
  assert.equal(await store.put(smallModel, begin.name, begin.content), true);
  await (await SnapshotStore.open({ disk, limitBytes })).clear();
  assert.equal(await store.put(smallModel, end.name, end.content), false, "its beginning is gone");
  assert.equal(await store.put(smallModel, begin.name, begin.content), true);
  assert.equal(await store.put(smallModel, end.name, end.content), true);
  assert.deepEqual(told, []);
});

/** A file system of so many bytes at `folder`, seen by the command alone; null where this user may not make one. */
function onSmallDisk(folder: string, bytes: number, command: readonly string[]): ReturnType<typeof spawnSync> | null {
  const script = 'mount -t tmpfs -o "size=$1" ringside "$2" || exit 99; shift 2; exec "$@"';
  const asRoot = process.getuid?.() === 0 ? ["--mount"] : ["--user", "--map-root-user", "--mount"];
  const result = spawnSync("unshare", [...asRoot, "sh", "-c", script, "sh", String(bytes), folder, ...command], {
    encoding: "utf8",
  });
  return result.error !== undefined || result.status === 99 || /^unshare:/m.test(result.stderr) ? null : result;
}

/** Where no small file system can be had: a disk in memory that says the same once it holds so much. */
async function onFullMemory(t: TestContext, bytes: number): Promise<StoreReport> {
  t.diagnostic("no file system could be made here; the disk is one in memory");
  const disk = new MemoryDisk();
  disk.beforeCall = (call) => {
    const held = [...disk.names.values()].reduce((sum, inode) => sum + inode.bytes.byteLength, 0);
    if (call === "write" && held > bytes) throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
  };
  const told: string[] = [];
  const store = await SnapshotStore.open({ disk, limitBytes: 1e9, onDisabled: (code) => told.push(code) });
  let [kept, found, wrong] = [0, 0, 0];
  for (let run = 0; run < 200; run += 1) {
    const tokens = tokensOf(String.fromCharCode(run), 640);
    const { name, content } = fileOf(smallModel, tokens, 0);
    if (await store.put(smallModel, name, content)) kept += 1;
    const whole = await store.get(smallModel, name.key);
    if (whole !== null) found += 1;
    if (whole !== null && !isSame(whole, wholeOf(smallModel, tokens))) wrong += 1;
  }
  return { kept, found, wrong, told };
}

test("a disk that is really full: what was kept stays readable, no more is written, and it is told once", async (t) => {
  const bytes = 512 * 1024;
  const folder = scratchFolder("full");
  const run = onSmallDisk(folder, bytes, [process.execPath, program, folder, "1e9", "1", "200"]);
  const report = run === null ? await onFullMemory(t, bytes) : (JSON.parse(String(run.stdout)) as StoreReport);
  t.diagnostic(JSON.stringify(report));
  assert.deepEqual(report.told, ["ENOSPC"]);
  assert.equal(report.wrong, 0);
  assert.ok(report.kept > 20 && report.found >= report.kept && report.kept < 200, JSON.stringify(report));
});
