// Back pressure: a sender knows when its peer does not read, waits for it, and does not read on itself meanwhile.
import assert from "node:assert/strict";
import { createServer, connect } from "node:net";
import type { Socket } from "node:net";
import * as path from "node:path";
import { test } from "node:test";
import { FrameStream } from "../../src/engine/frameStream";
import { scratchFolder } from "./engineUnderTest";

async function socketPair(): Promise<readonly [Socket, Socket]> {
  const address = path.join(scratchFolder("pair"), "socket");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(address, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const near = connect(address);
  const far = await accepted;
  server.close();
  return [near, far];
}

test("a peer that does not read makes the sender wait until it does", async () => {
  const [near, far] = await socketPair();
  const closed: unknown[] = [];
  const sender = new FrameStream(near, { onValue: () => undefined, onClose: (error) => closed.push(error) });
  const frame = { text: "x".repeat(100_000) };
  let sent = 0;
  while (!sender.congested) {
    sender.send(frame);
    sent += 1;
    assert.ok(sent < 200, "never congested");
  }
  let hasRoom = false;
  const room = sender.room().then(() => {
    hasRoom = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(hasRoom, false);

  let received = 0;
  const allReceived = new Promise<void>((resolve) => {
    new FrameStream(far, {
      onValue: (value) => {
        assert.deepEqual(value, frame);
        received += 1;
        if (received === sent) resolve();
      },
      onClose: () => undefined,
    });
  });
  await room;
  await allReceived;
  assert.equal(sender.congested, false);
  sender.close();
  assert.deepEqual(closed, [null]);
  sender.send(frame);
  await sender.room();
});

test("a peer that closes, and a frame that is none, are told once", async () => {
  const [near, far] = await socketPair();
  const closed: unknown[] = [];
  const told = new Promise<void>((resolve) => {
    new FrameStream(near, {
      onValue: () => undefined,
      onClose: (error) => {
        closed.push(error?.kind);
        resolve();
      },
    });
  });
  far.write(Buffer.alloc(8));
  far.end();
  await told;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(closed, ["frame-invalid"]);
});
