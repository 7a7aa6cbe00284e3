// Which states are kept in memory: a tree that grows with what is read and lets go of what is worth least.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { prefixKeys } from "../../src/engine/snapshotKeys";
import { Snapshots } from "../../src/engine/snapshots";
import { stopsOf, tokensBetweenStops } from "../../src/engine/stops";
import type { NativeSnapshot } from "../../src/engine/addonTypes";
import { tokensOf } from "./snapshotCases";

/** Only what the tree asks of a snapshot: where it stands, and to be closed once. */
class Kept implements NativeSnapshot {
  closed = 0;
  readonly #tokens: number;
  constructor(tokens: number) {
    this.#tokens = tokens;
  }
  position(): number {
    return this.#tokens;
  }
  bytes(): number {
    return 0;
  }
  exportParts(): never {
    return assert.fail("nothing is written here");
  }
  close(): void {
    this.closed += 1;
  }
}

const sizes = { stateBytes: 1_000, kvBytesPerToken: 1 };
const keysOf = (tokens: Int32Array): string[] => prefixKeys("seed", tokens);

test("what can be reused is the longest kept state that the prompt begins with", () => {
  const snapshots = new Snapshots(1e9, sizes);
  const main = keysOf(tokensOf("main", 640));
  const side = keysOf(tokensOf("main", 640, [200, "side"]));
  for (const position of [64, 192, 384]) snapshots.keep(main, new Kept(position));
  snapshots.keep(side, new Kept(320));
  assert.equal(snapshots.longest(main)?.boundary, 384);
  assert.equal(snapshots.longest(main.slice(0, 5))?.boundary, 192);
  assert.equal(snapshots.longest(side)?.boundary, 320);
  assert.equal(snapshots.longest(keysOf(tokensOf("main", 640, [100, "other"])))?.boundary, 64);
  assert.equal(snapshots.longest(keysOf(tokensOf("other", 640))), null);
  assert.equal(snapshots.longest([]), null);
});

test("a state that is kept already, or stands nowhere, is closed; clear closes all", () => {
  const snapshots = new Snapshots(1e9, sizes);
  const keys = keysOf(tokensOf("main", 640));
  const [first, again, nowhere] = [new Kept(64), new Kept(64), new Kept(0)];
  for (const snapshot of [first, again, nowhere]) snapshots.keep(keys, snapshot);
  assert.deepEqual([first.closed, again.closed, nowhere.closed], [0, 1, 1]);
  snapshots.clear();
  assert.equal(first.closed, 1);
  assert.equal(snapshots.count, 0);
});

test("many side questions never cost the repository: what they share is used with each of them", () => {
  const snapshots = new Snapshots(10 * sizes.stateBytes + 8_192, sizes);
  const base = tokensOf("repository", 4_096);
  const repository = [1_024, 2_048, 3_072, 4_096].map((position) => new Kept(position));
  for (const snapshot of repository) snapshots.keep(keysOf(base), snapshot);
  const questions: Kept[] = [];
  for (let index = 0; index < 200; index += 1) {
    const prompt = new Int32Array(4_224).fill(index + 1);
    prompt.set(base);
    const keys = keysOf(prompt);
    assert.equal(snapshots.use(keys)?.boundary, 4_096);
    const question = new Kept(4_224);
    questions.push(question);
    snapshots.keep(keys, question);
  }
  assert.deepEqual(
    repository.map(({ closed }) => closed),
    [0, 0, 0, 0],
  );
  assert.ok(questions.filter(({ closed }) => closed === 0).length <= 8);
});

test("over the limit only the newest stays, however large it is", () => {
  const snapshots = new Snapshots(100, sizes);
  const [small, large] = [new Kept(64), new Kept(640)];
  snapshots.keep(keysOf(tokensOf("a", 64)), small);
  snapshots.keep(keysOf(tokensOf("b", 640)), large);
  assert.deepEqual([small.closed, large.closed], [1, 0]);
});

/** A request as the engine makes it: what is kept is used, and states are kept at its stops, in ascending order. */
function request(snapshots: Snapshots, keys: readonly string[], stops: readonly number[]): Kept[] {
  const kept = snapshots.use(keys)?.boundary ?? 0;
  return stops
    .filter((stop) => stop > kept)
    .map((stop) => {
      const snapshot = new Kept(stop);
      snapshots.keep(keys, snapshot);
      return snapshot;
    });
}

test("a repository that is read once is one use, not one a stop: what the conversation used before it is still likely", () => {
  const snapshots = new Snapshots(12 * sizes.stateBytes + 12_288, sizes);
  const first = keysOf(tokensOf("a", 4_096));
  const mine = request(snapshots, first, [1_024, 2_048, 3_072, 4_096]);
  snapshots.use(first);
  // Eight states in one request: none of them was used more often than those of the first repository.
  const stops = Array.from({ length: 8 }, (_, index) => 1_024 * (index + 1));
  request(snapshots, keysOf(tokensOf("b", 8_192)), stops);
  assert.deepEqual(
    mine.map(({ closed }) => closed),
    [0, 0, 0, 0],
  );
});

test("property: among any questions, of any repositories, the end of the conversation's base stays within any budget", () => {
  const step = fc.record({
    repository: fc.nat(3),
    /** Tokens after the base, in chunks. */
    tail: fc.integer({ min: 0, max: 12 }),
    isBeside: fc.boolean(),
  });
  const bases = [40, 3, 17, 28].map((chunks, index) => tokensOf("abcd"[index] ?? "", chunks * 64));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 0, max: 30_000 }), (steps, limit) => {
      const snapshots = new Snapshots(limit, sizes);
      let standing: { readonly keys: readonly string[]; readonly end: number } | null = null;
      for (const [index, { repository, tail, isBeside }] of steps.entries()) {
        const base = bases[repository] ?? new Int32Array(0);
        const prompt = new Int32Array(base.length + tail * 64).fill(16_000 + index);
        prompt.set(base);
        const keys = keysOf(prompt);
        if (!isBeside) {
          standing = { keys: keys.slice(0, base.length / 64), end: base.length };
          snapshots.protect(standing.keys.at(-1));
        }
        const between = Array.from({ length: Math.floor(base.length / 512) }, (_, stop) => (stop + 1) * 512);
        request(snapshots, keys, [...new Set([...between, base.length, prompt.length])]);
        assert.ok(snapshots.bytes <= limit || snapshots.count === 1);
        if (standing !== null) assert.equal(snapshots.longest(standing.keys)?.boundary, standing.end);
      }
    }),
    { numRuns: 300 },
  );
});

test("property: the limit holds, each snapshot is closed once, and what is found was read", () => {
  const step = fc.record({
    of: fc.nat(3),
    length: fc.integer({ min: 1, max: 20 }),
    at: fc.nat(19),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1_000, max: 20_000 }), (steps, limit) => {
      const snapshots = new Snapshots(limit, sizes);
      const all: { readonly snapshot: Kept; readonly key: string }[] = [];
      for (const { of, length, at } of steps) {
        const keys = keysOf(tokensOf("a", length * 64, [256 * of, "bcd"[of] ?? "e"]));
        const found = snapshots.use(keys);
        if (found !== null) {
          const known = all.find(({ snapshot }) => snapshot === found.snapshot);
          assert.equal(known?.key, keys[found.boundary / 64 - 1]);
          assert.equal(known?.snapshot.closed, 0);
        }
        const position = Math.min(at + 1, length) * 64;
        const snapshot = new Kept(position);
        all.push({ snapshot, key: keys[position / 64 - 1] ?? "" });
        snapshots.keep(keys, snapshot);
        assert.ok(snapshots.bytes <= limit || snapshots.count === 1);
      }
      const open = all.filter((each) => each.snapshot.closed === 0).length;
      assert.equal(open, snapshots.count);
      snapshots.clear();
      assert.ok(all.every((each) => each.snapshot.closed === 1));
    }),
    { numRuns: 300 },
  );
});

test("property: stops ascend, stand at ends of files where these are near, and end with base and prompt", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 12_000 }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(lengths, fc.nat(500), (pieces, rest) => {
      let total = 0;
      const ends = pieces.map((length) => (total += length));
      const between = 2_048;
      const stops = stopsOf({ base: ends, deltas: [], prompt: total + rest }, between);
      assert.deepEqual(
        stops,
        [...new Set(stops)].sort((left, right) => left - right),
      );
      assert.ok(stops.includes(total));
      assert.equal(stops.at(-1), total + rest);
      const last = ends.at(-2) ?? 0;
      assert.ok(last === 0 || stops.includes(last), "what changed last may change again");
      const before = stops.filter((stop) => stop < total && stop !== last);
      for (const [index, stop] of before.entries()) {
        const gap = stop - (before[index - 1] ?? 0);
        assert.ok(gap >= between && (ends.includes(stop) || stops.includes(stop - between) || stop === between));
      }
      for (const [index, stop] of stops.slice(0, -1).entries()) {
        assert.ok(stop - (stops[index - 1] ?? 0) <= 3 * between);
      }
    }),
    { numRuns: 300 },
  );
});

test("states stand further apart where those of a whole context would take more than half of the memory", () => {
  assert.equal(tokensBetweenStops(32_768, 3_145_728, 2e9), 2_048);
  assert.equal(tokensBetweenStops(131_072, 16 * 2 ** 20, 1e9), 8_192);
  assert.equal(tokensBetweenStops(1 << 20, 1e9, 1e9), 16_384);
});
