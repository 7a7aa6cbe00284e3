// Frames by property: any values in any chunking come out as they went in, and no garbage does anything but a typed refusal.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { encodeFrame, FrameDecoder, frameLimitBytes } from "../../src/protocol/frame";
import { RingsideFailure } from "../../src/protocol/errors";

function isFrameInvalid(cause: unknown): boolean {
  return cause instanceof RingsideFailure && cause.error.kind === "frame-invalid";
}

function rawFrame(body: Uint8Array, length = body.length): Uint8Array {
  const frame = new Uint8Array(4 + body.length);
  new DataView(frame.buffer).setUint32(0, length, true);
  frame.set(body, 4);
  return frame;
}

function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let from = 0;
  for (const length of lengths) {
    chunks.push(bytes.subarray(from, from + length));
    from += length;
  }
  chunks.push(bytes.subarray(from));
  return chunks;
}

test("values survive any chunking of their frames", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ text: fc.string({ unit: "binary" }), ids: fc.array(fc.nat()) }), { maxLength: 6 }),
      fc.array(fc.nat(40), { maxLength: 60 }),
      (values, lengths) => {
        const bytes = Buffer.concat(values.map((value) => encodeFrame(value)));
        const decoder = new FrameDecoder();
        assert.deepEqual(
          cut(bytes, lengths).flatMap((chunk) => decoder.push(chunk)),
          JSON.parse(JSON.stringify(values)),
        );
      },
    ),
    { numRuns: 500 },
  );
});

test("one byte at a time is a chunking too", () => {
  const decoder = new FrameDecoder();
  const bytes = encodeFrame({ text: "ß🦀", n: 1 });
  assert.deepEqual(
    [...bytes].flatMap((byte) => decoder.push(Uint8Array.of(byte))),
    [{ text: "ß🦀", n: 1 }],
  );
});

test("random bytes give values or frame-invalid, never anything else", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 20 }), (chunks) => {
      const decoder = new FrameDecoder();
      try {
        for (const chunk of chunks) decoder.push(chunk);
      } catch (cause) {
        assert.ok(isFrameInvalid(cause), String(cause));
      }
    }),
    { numRuns: 2_000 },
  );
});

test("bad frames are refused as soon as they can be known", () => {
  const body = new TextEncoder().encode("{}");
  const bad: readonly (readonly [name: string, bytes: Uint8Array])[] = [
    ["length 0", rawFrame(new Uint8Array(0))],
    ["length over the limit, before any body", rawFrame(new Uint8Array(0), frameLimitBytes + 1)],
    ["largest length", rawFrame(new Uint8Array(0), 0xffffffff)],
    ["not JSON", rawFrame(new TextEncoder().encode("{"))],
    ["JSON with something after it", rawFrame(new TextEncoder().encode("{} {}"))],
    ["not UTF-8", rawFrame(Uint8Array.of(0x22, 0xff, 0x22))],
    ["UTF-8 cut in a character", rawFrame(Uint8Array.of(0x22, 0xe2, 0x82, 0x22))],
    ["a byte order mark", rawFrame(Uint8Array.of(0xef, 0xbb, 0xbf, ...body))],
  ];
  for (const [name, bytes] of bad) {
    assert.throws(() => new FrameDecoder().push(bytes), isFrameInvalid, name);
  }
});

test("a value that does not fit a frame is refused by the sender", () => {
  const largest = "x".repeat(frameLimitBytes - '{"t":""}'.length);
  assert.equal(encodeFrame({ t: largest }).length, 4 + frameLimitBytes);
  assert.throws(
    () => encodeFrame({ t: `${largest}x` }),
    (cause: unknown) => cause instanceof RingsideFailure && cause.error.kind === "argument-invalid",
  );
});

test("a frame of the largest size in small chunks is decoded in linear time", () => {
  const bytes = encodeFrame({ t: "x".repeat(frameLimitBytes - 100) });
  const decoder = new FrameDecoder();
  const startedMs = performance.now();
  let values: unknown[] = [];
  for (let from = 0; from < bytes.length; from += 512) values = decoder.push(bytes.subarray(from, from + 512));
  assert.equal(values.length, 1);
  assert.ok(performance.now() - startedMs < 5_000);
});
