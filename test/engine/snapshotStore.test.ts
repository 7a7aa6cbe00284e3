// The snapshots on a disk: lines that share a beginning, a budget, a disk that fails, and what a power cut may leave.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import * as fc from "fast-check";
import { FolderDisk } from "../../src/engine/snapshotDisk";
import { headerBytes } from "../../src/engine/snapshotFile";
import { SnapshotStore } from "../../src/engine/snapshotStore";
import { scratchFolder } from "./engineUnderTest";
import {
  afterCrash,
  fileOf,
  isSame,
  MemoryDisk,
  randomFrom,
  smallModel as model,
  tokensOf,
  wholeOf,
} from "./snapshotCases";

const roomy = 1e9;

interface State {
  readonly tokens: Int32Array;
  readonly fromTokens: number;
}
const keyOf = ({ tokens, fromTokens }: State): string => fileOf(model, tokens, fromTokens).name.key;
const put = (store: SnapshotStore, { tokens, fromTokens }: State, inUse?: ReadonlySet<string>): Promise<boolean> => {
  const { name, content } = fileOf(model, tokens, fromTokens);
  return store.put(model, name, content, inUse);
};
async function assertRight(store: SnapshotStore, state: State): Promise<void> {
  const found = await store.get(model, keyOf(state));
  assert.ok(found !== null && isSame(found, wholeOf(model, state.tokens)));
}

const main = tokensOf("main", 1_600);
const line: readonly State[] = [
  { tokens: main.slice(0, 64), fromTokens: 0 },
  { tokens: main.slice(0, 192), fromTokens: 64 },
  { tokens: main.slice(0, 704), fromTokens: 192 },
  { tokens: main.slice(0, 1_024), fromTokens: 704 },
  { tokens: main, fromTokens: 1_024 },
];
const side: State = { tokens: tokensOf("main", 896, [704, "side"]), fromTokens: 704 };

test("states of one line share what stands before them, and a new store finds them all", async () => {
  const folder = path.join(scratchFolder("snapshots"), "store");
  const store = await SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: roomy });
  for (const state of [...line, side]) assert.equal(await put(store, state), true);
  const again = await SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: roomy });
  assert.equal(again.list().length, 6);
  assert.equal(again.bytes, store.bytes);
  for (const state of [...line, side]) {
    await assertRight(store, state);
    await assertRight(again, state);
  }
  assert.equal(fs.statSync(folder).mode & 0o777, 0o700);
  for (const file of fs.readdirSync(folder)) {
    assert.match(file, /^[0-9a-f]{64}\.snapshot$/);
    assert.equal(fs.statSync(path.join(folder, file)).mode & 0o777, 0o600);
  }
  await again.clear();
  assert.deepEqual(fs.readdirSync(folder), []);
});

test("a state whose beginning is not kept is not kept, and one behind a damaged file goes with it", async () => {
  const disk = new MemoryDisk();
  const damaged: string[] = [];
  const store = await SnapshotStore.open({ disk, limitBytes: roomy, onDamaged: (key) => damaged.push(key) });
  assert.equal(await put(store, line[1] as State), false);
  for (const state of [...line, side]) await put(store, state);
  const broken = disk.names.get(`${keyOf(line[2] as State)}.snapshot`);
  assert.ok(broken !== undefined);
  broken.bytes[headerBytes + 5] = (broken.bytes[headerBytes + 5] ?? 0) ^ 4;
  assert.equal(await store.get(model, keyOf(line[4] as State)), null);
  assert.deepEqual(damaged, [keyOf(line[2] as State)]);
  assert.deepEqual(
    store.list().map(({ key }) => key),
    [keyOf(line[0] as State), keyOf(line[1] as State)],
  );
  assert.equal(disk.names.size, 2);
  await assertRight(store, line[1] as State);
});

test("over the budget the ends that are cheap to read again and long unused go first, and never what is in use", async () => {
  const bytes = (states: readonly State[]): number =>
    states.reduce((sum, { tokens, fromTokens }) => {
      const { content } = fileOf(model, tokens, fromTokens);
      return sum + headerBytes + content.tokens.byteLength + content.state.byteLength + content.pages.byteLength;
    }, 0);
  let nowMs = 0;
  const disk = new MemoryDisk();
  const limitBytes = bytes([...line, side]);
  const store = await SnapshotStore.open({ disk, limitBytes, nowMs: () => nowMs });
  for (const state of [...line, side]) assert.equal(await put(store, state), true);
  // The side line was used last, but a week later nobody remembers either: then its 192 tokens are the cheaper ones.
  nowMs += 7 * 24 * 3_600_000;
  await assertRight(store, line[4] as State);
  const other: State = { tokens: tokensOf("other", 192), fromTokens: 0 };
  assert.equal(await put(store, other), true);
  assert.ok(!store.has(keyOf(side)));
  assert.ok(store.has(keyOf(line[4] as State)));
  assert.ok(store.bytes <= limitBytes);
  // All of it is in use or stands before what is: nothing goes, and the newcomer is not kept.
  const inUse = new Set(store.list().map(({ key }) => key));
  assert.equal(await put(store, { tokens: tokensOf("huge", 1_024), fromTokens: 0 }, inUse), false);
  assert.equal(store.list().length, inUse.size);
  assert.equal(store.writable, true);
});

test("property: whatever is put in whatever order under whatever budget, what is found is right and the budget holds", async () => {
  const step = fc.record({ of: fc.nat(3), until: fc.integer({ min: 1, max: 16 }), behind: fc.nat(5) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 24 }),
      fc.integer({ min: 1, max: 60_000 }),
      async (steps, limitBytes) => {
        const disk = new MemoryDisk();
        let nowMs = 0;
        const store = await SnapshotStore.open({ disk, limitBytes, nowMs: () => nowMs });
        const known: State[] = [];
        for (const { of, until, behind } of steps) {
          nowMs += 3_600_000;
          const tokens = tokensOf("a", until * 64, [256 * of, "bcd"[of] ?? "e"]);
          // Behind the state of the same beginning that so many steps before was kept, if there is one.
          const before = known
            .filter((state) => state.tokens.length < tokens.length && store.has(keyOf(state)))
            .filter((state) => state.tokens.every((token, index) => token === tokens[index]));
          const fromTokens = before.at(-1 - behind)?.tokens.length ?? 0;
          await put(store, { tokens, fromTokens });
          known.push({ tokens, fromTokens });
          assert.ok(store.bytes <= limitBytes);
        }
        const again = await SnapshotStore.open({ disk, limitBytes });
        for (const state of known) {
          for (const reader of [store, again]) {
            const found = await reader.get(model, keyOf(state));
            assert.ok(found === null ? !reader.has(keyOf(state)) : isSame(found, wholeOf(model, state.tokens)));
          }
        }
      },
    ),
    { numRuns: 150 },
  );
});

/** Puts, uses, loses and puts again, within a budget that is too small for all. */
async function scenario(store: SnapshotStore): Promise<Map<string, number>> {
  const acknowledged = new Map<string, number>();
  const steps: readonly State[] = [
    ...line.slice(0, 3),
    side,
    ...line.slice(3),
    { tokens: tokensOf("other", 320), fromTokens: 0 },
    // The same states again, in files that begin elsewhere.
    { tokens: main.slice(0, 704), fromTokens: 0 },
    { tokens: main.slice(0, 1_024), fromTokens: 704 },
  ];
  for (const [index, state] of steps.entries()) {
    if (index === 7) await store.clear();
    if (await put(store, state)) acknowledged.set(keyOf(state), index);
  }
  return acknowledged;
}

test("crash simulation: 10,000 states of a disk after a power cut hold right snapshots or none", async (t) => {
  const disk = new MemoryDisk();
  await scenario(await SnapshotStore.open({ disk, limitBytes: 60_000 }));
  const states = [...line, side, { tokens: tokensOf("other", 320), fromTokens: 0 }];
  const expected = new Map(states.map((state) => [keyOf(state), wholeOf(model, state.tokens)]));
  const random = randomFrom(3);
  let found = 0;
  let none = 0;
  for (let run = 0; run < 10_000; run += 1) {
    const count = Math.floor(random() * (disk.calls.length + 1));
    const left = afterCrash(disk.calls, count, random);
    const store = await SnapshotStore.open({ disk: left, limitBytes: 60_000 });
    for (const [key, whole] of expected) {
      const read = await store.get(model, key);
      if (read === null) none += 1;
      else found += 1;
      assert.ok(read === null || isSame(read, whole), `after ${String(count)} calls`);
    }
    // Whatever was left, the store works on.
    if (run % 100 === 0) {
      assert.equal(await put(store, { tokens: tokensOf("later", 64), fromTokens: 0 }), true);
    }
  }
  t.diagnostic(`${String(disk.calls.length)} calls; ${String(found)} found, ${String(none)} not, 0 wrong`);
  assert.ok(found > 5_000 && none > 5_000);
});

test("what was said to be kept is there after a power cut, unless it had to go", async () => {
  const random = randomFrom(4);
  const disk = new MemoryDisk();
  const store = await SnapshotStore.open({ disk, limitBytes: roomy });
  for (const state of line) {
    assert.equal(await put(store, state), true);
    for (let run = 0; run < 50; run += 1) {
      const left = await SnapshotStore.open({
        disk: afterCrash(disk.calls, disk.calls.length, random),
        limitBytes: roomy,
      });
      await assertRight(left, state);
    }
  }
});

test("whichever call of the disk fails, and how: nothing partial is accepted, nothing earlier is lost, and it is told once", async () => {
  for (const code of ["ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES"]) {
    for (let failing = 1; ; failing += 1) {
      const disk = new MemoryDisk();
      const told: string[] = [];
      const store = await SnapshotStore.open({ disk, limitBytes: roomy, onDisabled: (reason) => told.push(reason) });
      await put(store, line[0] as State);
      let calls = 0;
      disk.beforeCall = () => {
        calls += 1;
        if (calls === failing) throw Object.assign(new Error(code), { code });
      };
      const kept = await put(store, line[1] as State);
      const reached = calls >= failing;
      assert.deepEqual(told, kept ? [] : [code]);
      assert.equal(store.writable, kept);
      disk.beforeCall = () => undefined;
      assert.equal(await put(store, line[2] as State), kept, "nothing is written after a failure");
      for (const reader of [store, await SnapshotStore.open({ disk, limitBytes: roomy })]) {
        await assertRight(reader, line[0] as State);
        const second = await reader.get(model, keyOf(line[1] as State));
        assert.ok(second === null || isSame(second, wholeOf(model, (line[1] as State).tokens)));
      }
      if (!reached) break;
    }
  }
});

test("a disk that fails while it is read costs that state only", async () => {
  for (let failing = 1; ; failing += 1) {
    const disk = new MemoryDisk();
    const store = await SnapshotStore.open({ disk, limitBytes: roomy });
    for (const state of line) await put(store, state);
    let calls = 0;
    disk.beforeCall = () => {
      calls += 1;
      if (calls === failing) throw Object.assign(new Error("EIO"), { code: "EIO" });
    };
    const found = await store.get(model, keyOf(line[4] as State));
    assert.ok(found === null || isSame(found, wholeOf(model, main)));
    if (calls < failing) break;
  }
});

test("a folder that cannot be used is told, and nothing else happens", async () => {
  const file = path.join(scratchFolder("snapshots"), "no-folder");
  fs.writeFileSync(file, "");
  const told: string[] = [];
  const store = await SnapshotStore.open({
    disk: new FolderDisk(file),
    limitBytes: roomy,
    onDisabled: (code) => told.push(code),
  });
  assert.equal(await put(store, line[0] as State), false);
  assert.equal(await store.get(model, keyOf(line[0] as State)), null);
  assert.deepEqual(told, ["EEXIST"]);
});

/** Leaves files of a process that is no more, and opens the store; by the processor's time, because tests run beside each other. */
async function sweepMs(folder: string, key: string, leftovers: number): Promise<number> {
  for (let index = 0; index < leftovers; index += 1) {
    fs.writeFileSync(path.join(folder, `${key}.snapshot.tmp.999999999.${index.toString(16)}`), "x");
  }
  const before = process.cpuUsage();
  await SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: roomy });
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

test("10,000 leftovers of dead processes are swept in time in proportion, and nothing else is touched", async (t) => {
  const folder = scratchFolder("leftovers");
  const key = keyOf(line[0] as State);
  const fewMs = await sweepMs(folder, key, 1_000);
  fs.writeFileSync(path.join(folder, `${key}.snapshot.tmp.${String(process.ppid)}.0`), "of a living process");
  fs.writeFileSync(path.join(folder, "notes.txt"), "the user's");
  fs.symlinkSync(path.join(folder, "notes.txt"), path.join(folder, `${key}.snapshot`));
  const manyMs = await sweepMs(folder, key, 10_000);
  t.diagnostic(`1,000 in ${fewMs.toFixed(0)} ms of a processor, 10,000 in ${manyMs.toFixed(0)} ms`);
  assert.deepEqual(fs.readdirSync(folder).sort(), [
    `${key}.snapshot`,
    `${key}.snapshot.tmp.${String(process.ppid)}.0`,
    "notes.txt",
  ]);
  assert.ok(manyMs < Math.max(2_000, 30 * fewMs), `${String(manyMs)} ms after ${String(fewMs)} ms`);
});

test("two processes on one folder read nothing wrong", async () => {
  const folder = scratchFolder("shared");
  const open = (): Promise<SnapshotStore> => SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: 40_000 });
  const stores = await Promise.all([open(), open()]);
  const random = randomFrom(5);
  const states = [...line, side, ...["x", "y", "z"].map((name) => ({ tokens: tokensOf(name, 640), fromTokens: 0 }))];
  const work = async (store: SnapshotStore): Promise<number> => {
    let found = 0;
    for (let run = 0; run < 200; run += 1) {
      const state = states[Math.floor(random() * states.length)] as State;
      if (random() < 0.5) await put(store, state);
      const read = await store.get(model, keyOf(state));
      assert.ok(read === null || isSame(read, wholeOf(model, state.tokens)));
      if (read !== null) found += 1;
    }
    return found;
  };
  const found = await Promise.all(stores.map(work));
  assert.ok(found.every((count) => count > 0));
});
