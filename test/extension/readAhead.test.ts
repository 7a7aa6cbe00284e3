// When the repository is read without a question: after a quiet while, where it is allowed, never beside a question.
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { ReadAhead } from "../../src/extension/readAhead";
import type { ReadAheadMode } from "../../src/extension/readAhead";

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
});

class World {
  mode: ReadAheadMode = "onPower";
  mayRead = true;
  onBattery = false;
  reads = 0;
  settledReads = 0;
  #end: (isThrough: boolean) => void = () => undefined;
  readonly readAhead = new ReadAhead({
    mode: () => this.mode,
    mayRead: () => this.mayRead,
    onBattery: () => Promise.resolve(this.onBattery),
    read: (isSettled) => {
      this.reads += 1;
      if (isSettled) this.settledReads += 1;
      return new Promise((resolve) => (this.#end = resolve));
    },
    quietMs: 100,
    settledMs: 50_000,
    batteryMs: 1_000,
  });

  async pass(ms: number): Promise<number> {
    mock.timers.tick(ms);
    for (let turn = 0; turn < 8; turn++) await Promise.resolve();
    return this.reads;
  }

  async endReading(isThrough = true): Promise<void> {
    this.#end(isThrough);
    await this.pass(0);
  }
}

test("it reads once after a quiet while, and typing makes it wait", async () => {
  const world = new World();
  world.readAhead.postpone();
  assert.equal(await world.pass(500), 0, "typing alone is no reason to read");
  world.readAhead.wake();
  assert.equal(await world.pass(99), 0);
  world.readAhead.postpone();
  assert.equal(await world.pass(99), 0);
  assert.equal(await world.pass(1), 1);
  assert.equal(await world.pass(10_000), 1);
});

test("what changes while it reads is read afterwards", async () => {
  const world = new World();
  world.readAhead.wake();
  assert.equal(await world.pass(100), 1);
  world.readAhead.wake();
  world.readAhead.wake();
  assert.equal(await world.pass(500), 1);
  await world.endReading();
  assert.equal(await world.pass(100), 2);
  await world.endReading();
  assert.equal(await world.pass(10_000), 2);
});

test("it does not read when it is off, in a folder that is not trusted or beside a question", async () => {
  const world = new World();
  world.mode = "off";
  world.readAhead.wake();
  assert.equal(await world.pass(500), 0);
  world.mode = "on";
  world.mayRead = false;
  world.readAhead.wake();
  assert.equal(await world.pass(500), 0);
  world.mayRead = true;
  world.readAhead.wake();
  assert.equal(await world.pass(500), 1);
});

test("on a battery it waits for power, unless it is to read always", async () => {
  const world = new World();
  world.onBattery = true;
  world.readAhead.wake();
  assert.equal(await world.pass(100), 0);
  assert.equal(await world.pass(1_000), 0);
  world.onBattery = false;
  assert.equal(await world.pass(1_000), 1);
  await world.endReading();
  world.onBattery = true;
  world.mode = "on";
  world.readAhead.wake();
  assert.equal(await world.pass(100), 2);
});

test("a question that comes while the battery is looked up keeps it from reading", async () => {
  const world = new World();
  world.readAhead.wake();
  mock.timers.tick(100);
  world.mayRead = false;
  assert.equal(await world.pass(0), 0);
});

test("the user's stop holds until it is taken back", async () => {
  const world = new World();
  world.readAhead.wake();
  world.readAhead.pause();
  world.readAhead.wake();
  assert.equal(await world.pass(10_000), 0);
  world.readAhead.resume();
  assert.equal(await world.pass(100), 1);
  world.readAhead.wake();
  world.readAhead.pause();
  await world.endReading();
  assert.equal(await world.pass(10_000), 1);
});

test("when nothing has happened for long it reads once more, to settle", async () => {
  const world = new World();
  world.readAhead.wake();
  await world.pass(100);
  await world.endReading();
  assert.equal(await world.pass(49_999), 1);
  world.readAhead.postpone();
  assert.equal(await world.pass(49_999), 1);
  assert.equal(await world.pass(1), 2);
  assert.equal(world.settledReads, 1);
  await world.endReading();
  assert.equal(await world.pass(200_000), 2, "once is enough");
});

test("a change before that is read first, and a reading that was stopped settles nothing", async () => {
  const world = new World();
  world.readAhead.wake();
  await world.pass(100);
  await world.endReading();
  world.readAhead.wake();
  assert.equal(await world.pass(100), 2);
  assert.equal(world.settledReads, 0);
  await world.endReading(false);
  assert.equal(await world.pass(200_000), 2);
});

test("nothing runs after its end", async () => {
  const world = new World();
  world.readAhead.wake();
  world.readAhead.dispose();
  assert.equal(await world.pass(10_000), 0);
});
