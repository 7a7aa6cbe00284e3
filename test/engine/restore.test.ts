// What was read of a repository outlives the process: the next one restores it from the disk, bit for bit, or reads it again.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import { openAddon } from "../../src/engine/addon";
import type { NativeModel, NativeResult, NativeSession } from "../../src/engine/addonTypes";
import { clearSnapshots, listSnapshots } from "../../src/engine/client";
import { firstPage } from "../../src/engine/snapshotFile";
import { keyAt, prefixKeys } from "../../src/engine/snapshotKeys";
import { SnapshotStore } from "../../src/engine/snapshotStore";
import type { EnginePort, Prompt, SyncDone } from "../../src/protocol/engine";
import { addonPath, nanoFolder, newEngine, scratchFolder, tinyModel } from "./engineUnderTest";
import { MemoryDisk, randomFrom, smallModel } from "./snapshotCases";
import { greedy, loadRequest } from "./prompts";

function value<T>(result: NativeResult<T>): T {
  assert.ok(result.ok, result.ok ? "" : JSON.stringify(result.error));
  return result.value;
}
const addon = openAddon(addonPath);
const ignore = (): undefined => undefined;

async function tiny(kvFormat = "bf16"): Promise<NativeModel> {
  const request = { folder: tinyModel(), backend: "cpu", threads: 1, slopeForm: "A", isa: "", kvFormat };
  return value(await addon.loadModel(request, ignore));
}
const open = (model: NativeModel): NativeSession => value(model.openSession());
function randomIds(count: number, random: () => number): Int32Array {
  return Int32Array.from({ length: count }, () => Math.floor(random() * 256));
}

for (const kvFormat of ["bf16", "f32", "q8"] as const) {
  test(`restore and extend equals an uninterrupted run bit for bit: 200 cuts × 5 prompts through files (${kvFormat})`, async () => {
    const model = await tiny(kvFormat);
    const parts = model.snapshotParts();
    const disk = new MemoryDisk();
    const store = await SnapshotStore.open({ disk, limitBytes: 1e12 });
    const geometry = { ...smallModel, ...parts };
    const random = randomFrom(7);
    // The cheaper formats share all of the code but the kernels, so fewer cuts do.
    const cuts = kvFormat === "bf16" ? 200 : 20;
    for (let prompt = 0; prompt < 5; prompt += 1) {
      const tokens = randomIds(448, random);
      const keys = prefixKeys(`prompt ${String(prompt)}`, tokens);
      const whole = open(model);
      value(await whole.sync(tokens, [], ignore));
      const expected = value(await whole.logits(Int32Array.of(1)));
      for (let cut = 0; cut < cuts; cut += 1) {
        const toTokens = 64 * (1 + Math.floor(random() * 6));
        const key = keyAt(keys, toTokens) ?? "";
        if (!store.has(key)) {
          const session = open(model);
          value(await session.sync(tokens.slice(0, toTokens + Math.floor(random() * 60)), [], ignore));
          const snapshot = value(session.snapshot());
          assert.equal(snapshot.position(), toTokens);
          const kept = keys.slice(0, toTokens / 64 - 1).findLastIndex((candidate) => store.has(candidate));
          const fromTokens = 64 * (kept + 1);
          const content = value(snapshot.exportParts(firstPage(fromTokens)));
          const name = { key, parent: keyAt(keys, fromTokens) ?? "", fromTokens, toTokens, label: "" };
          assert.ok(await store.put(geometry, name, { tokens: tokens.slice(fromTokens, toTokens), ...content }));
          snapshot.close();
          session.close();
        }
        const read = await store.get(geometry, key);
        assert.ok(read !== null);
        const restored = value(model.importSnapshot(read.tokens, read.state, read.pages));
        const session = open(model);
        assert.deepEqual(value(await session.sync(tokens, [restored], ignore)), { reused: toTokens });
        const found = value(await session.logits(Int32Array.of(1)));
        assert.ok(Buffer.from(found.buffer).equals(Buffer.from(expected.buffer)), `cut at ${String(toTokens)}`);
        restored.close();
        session.close();
      }
      whole.close();
    }
    model.close();
  });
}

test("the addon takes no bytes that are not a snapshot of its model", async () => {
  const model = await tiny();
  const { stateBytes, pageBytes } = model.snapshotParts();
  assert.ok(stateBytes > 0 && pageBytes > 0);
  const session = open(model);
  const tokens = randomIds(320, randomFrom(8));
  value(await session.sync(tokens, [], ignore));
  const snapshot = value(session.snapshot());
  const { state, pages } = value(snapshot.exportParts(0));
  assert.deepEqual([state.byteLength, pages.byteLength], [stateBytes, 2 * pageBytes]);
  assert.equal(value(snapshot.exportParts(2)).pages.byteLength, 0);
  const kind = (result: NativeResult<unknown>): string => (result.ok ? "ok" : result.error.kind);
  assert.equal(kind(snapshot.exportParts(3)), "argument-invalid");
  assert.equal(kind(snapshot.exportParts(-1)), "argument-invalid");
  const good = tokens.slice(0, 320);
  const notANumber = (bytes: Uint8Array): Uint8Array => {
    const changed = Uint8Array.from(bytes);
    changed.set([0xff, 0xff, 0xff, 0x7f], bytes.byteLength - 4);
    return changed;
  };
  const wrong = Int32Array.from(good);
  wrong[5] = 1 << 20;
  const cases: readonly (readonly [string, Int32Array, Uint8Array, readonly Uint8Array[]])[] = [
    ["ok", good, state, [pages]],
    ["ok", good, state, [pages.subarray(0, pageBytes), pages.subarray(pageBytes)]],
    ["argument-invalid", good.subarray(1), state, [pages]],
    ["argument-invalid", good, state.subarray(4), [pages]],
    ["argument-invalid", good, state, [pages.subarray(0, pageBytes)]],
    ["argument-invalid", good, state, [pages.subarray(1)]],
    ["argument-invalid", good, state, []],
    ["token-out-of-range", wrong, state, [pages]],
    ["file-malformed", good, notANumber(state), [pages]],
    ["file-malformed", good, state, [notANumber(pages)]],
  ];
  for (const [expected, ...given] of cases) {
    const result = model.importSnapshot(...given);
    assert.equal(kind(result), expected);
    if (result.ok) result.value.close();
  }
  const loose = model as unknown as Record<string, (...given: unknown[]) => NativeResult<unknown>>;
  for (const given of [[], [good, 1, [pages]], [good, state, pages], ["x", state, [pages]], [good, state, [1]]]) {
    assert.equal(kind(loose["importSnapshot"]?.(...given) as NativeResult<unknown>), "argument-invalid");
  }
  snapshot.close();
  assert.equal(kind(snapshot.exportParts(0)), "state-invalid");
  model.close();
  assert.deepEqual(model.snapshotParts(), { stateBytes: 0, pageBytes: 0 });
  assert.equal(kind(model.importSnapshot(good, state, [pages])), "state-invalid");
});

/** Files of about 700 tokens each, and a question. */
function repositoryPrompt(files: number, question: string, changed = -1): Prompt {
  const pieces = Array.from({ length: files }, (_, file) => {
    const lines = Array.from(
      { length: 25 },
      (_unused, line) =>
        `export const value_${String(file)}_${String(line)} = ${String(file === changed ? 0 : line * 7)};`,
    );
    return {
      parts: [
        { special: '<file path="' },
        { text: `src/f${String(file)}.ts">\n${lines.join("\n")}\n` },
        { special: "</file>" },
      ],
    };
  });
  return {
    pieces: [...pieces, { parts: [{ text: `\n\n${question}` }, { special: "<|role_end|>" }] }],
    basePieces: files,
  };
}

async function answer(engine: EnginePort): Promise<number[]> {
  const ids: number[] = [];
  await engine.generate({ maxTokens: 12, sampler: greedy }, { onTokens: (batch) => ids.push(...batch.ids) });
  return ids;
}

interface Asked {
  readonly sync: SyncDone;
  readonly ids: readonly number[];
  readonly log: readonly string[];
}

/** One life of an engine process: it loads, answers, writes what it has read, and ends. */
async function life(
  snapshots: { readonly folder: string; readonly limitBytes: number } | undefined,
  prompt: Prompt,
  { repository = "/r", kvFormat = "bf16" }: { repository?: string; kvFormat?: "bf16" | "q8" } = {},
): Promise<Asked> {
  const log: string[] = [];
  const engine = newEngine({ snapshots, log: (line) => log.push(line) });
  await engine.load(loadRequest(nanoFolder, { kvFormat }));
  const sync = await engine.sync(prompt, { repository });
  const ids = await answer(engine);
  // Unloading waits for what is being written, and forgets what waits: so the answer's time is given to it first.
  const wanted = Math.floor(sync.baseTokens / 64) * 64;
  for (let tries = 0; snapshots !== undefined && repository !== "" && tries < 200; tries += 1) {
    const kept = fs.existsSync(snapshots.folder) && fs.statSync(snapshots.folder).isDirectory();
    if (!kept || (await listSnapshots(snapshots.folder)).some(({ toTokens }) => toTokens === wanted)) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await engine.stop();
  return { sync, ids, log };
}

test("a restarted engine reads fewer than 64 tokens of the base again, and answers as a fresh one", async () => {
  const snapshots = { folder: path.join(scratchFolder("restore"), "snapshots"), limitBytes: 1e9 };
  const fresh = await life(undefined, repositoryPrompt(8, "Where is `value_3_4`?"));
  const first = await life(snapshots, repositoryPrompt(8, "Where is `value_3_4`?"));
  assert.equal(first.sync.reusedTokens, 0);
  assert.deepEqual(first.ids, fresh.ids);

  const second = await life(snapshots, repositoryPrompt(8, "Where is `value_3_4`?"));
  assert.ok(second.sync.baseTokensRead < 64, `${String(second.sync.baseTokensRead)} tokens`);
  assert.deepEqual(second.ids, fresh.ids);

  // The last file changed: the state at the stop before it is restored.
  const changed = await life(snapshots, repositoryPrompt(8, "Where is `value_3_4`?", 7));
  const { reusedTokens, baseTokens } = changed.sync;
  assert.ok(
    reusedTokens > 1_900 && reusedTokens < (baseTokens * 7) / 8 + 64,
    `${String(reusedTokens)} of ${String(baseTokens)}`,
  );
  assert.deepEqual(changed.ids, (await life(undefined, repositoryPrompt(8, "Where is `value_3_4`?", 7))).ids);

  // Another repository with the same text, and a model loaded in another way, find nothing.
  assert.equal((await life(snapshots, repositoryPrompt(8, "x"), { repository: "/other" })).sync.reusedTokens, 0);
  assert.equal((await life(snapshots, repositoryPrompt(8, "x"), { kvFormat: "q8" })).sync.reusedTokens, 0);
  // Nor is anything kept of one that has no name.
  const before = (await listSnapshots(snapshots.folder)).length;
  await life(snapshots, repositoryPrompt(6, "y"), { repository: "" });
  assert.equal((await listSnapshots(snapshots.folder)).length, before);

  const repositories = new Set((await listSnapshots(snapshots.folder)).map(({ label }) => label));
  assert.deepEqual(repositories, new Set(["/r", "/other"]));
  assert.ok((await clearSnapshots(snapshots.folder, "/other")) > 0);
  assert.ok((await listSnapshots(snapshots.folder)).every(({ label }) => label === "/r"));
  await clearSnapshots(snapshots.folder);
  assert.deepEqual(fs.readdirSync(snapshots.folder), []);
});

test("a damaged file is removed and told of, and the text is read again", async () => {
  const snapshots = { folder: path.join(scratchFolder("damaged"), "snapshots"), limitBytes: 1e9 };
  const prompt = repositoryPrompt(8, "Where is `value_2_2`?");
  const first = await life(snapshots, prompt);
  const kept = await listSnapshots(snapshots.folder);
  const [last] = [...kept].sort((left, right) => right.toTokens - left.toTokens);
  assert.ok(last !== undefined && kept.length > 1);
  const file = path.join(snapshots.folder, `${last.key}.snapshot`);
  const bytes = fs.readFileSync(file);
  bytes[5_000] = (bytes[5_000] ?? 0) ^ 1;
  fs.writeFileSync(file, bytes);
  const second = await life(snapshots, prompt);
  assert.ok(second.sync.reusedTokens > 0 && second.sync.reusedTokens < last.toTokens);
  assert.deepEqual(second.ids, first.ids);
  assert.ok(second.log.some((line) => line.includes("was damaged")));
});

test("a folder that cannot be written to is told of once, and answers come all the same", async () => {
  const folder = path.join(scratchFolder("no-folder"), "file");
  fs.writeFileSync(folder, "");
  const { ids, log } = await life({ folder, limitBytes: 1e9 }, repositoryPrompt(4, "Where is `value_1_1`?"));
  assert.ok(ids.length > 0);
  assert.equal(log.filter((line) => line.includes("not written any more")).length, 1);
});
