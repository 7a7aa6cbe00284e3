// The bytes of a snapshot's file: every flipped bit and every cut is seen, and the parser behind the checksums believes nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { encodeSnapshot, headerBytes, parseHeader, sectionNames, sha256 } from "../../src/engine/snapshotFile";
import type { SectionName } from "../../src/engine/snapshotFile";
import { bytesOf } from "../../src/engine/snapshotKeys";
import { SnapshotStore } from "../../src/engine/snapshotStore";
import { RingsideFailure } from "../../src/protocol/errors";
import { fileOf, isSame, MemoryDisk, randomFrom, smallModel, tokensOf, wholeOf } from "./snapshotCases";

const model = { ...smallModel, stateBytes: 9_000, pageBytes: 12_000 };
const tokens = tokensOf("main", 640);
const { name, content } = fileOf(model, tokens, 0, "répertoire");
const hashes = Object.fromEntries(
  sectionNames.map((section) => [section, sha256(section === "tokens" ? bytesOf(content.tokens) : content[section])]),
) as Record<SectionName, string>;
const file = Buffer.concat(encodeSnapshot(model, name, content, hashes));
const fileName = `${name.key}.snapshot`;

/** Whether a store accepts these bytes, and if so as what. */
async function accepts(bytes: Uint8Array): Promise<"refused" | "right" | "wrong"> {
  const disk = new MemoryDisk();
  disk.names.set(fileName, { bytes });
  const store = await SnapshotStore.open({ disk, limitBytes: 1e9 });
  const found = await store.get(model, name.key);
  if (found === null) {
    assert.equal(disk.names.size, 0, "what is not whole is removed");
    return "refused";
  }
  return isSame(found, wholeOf(model, tokens)) ? "right" : "wrong";
}

function flipped(bit: number): Uint8Array {
  const bytes = Uint8Array.from(file);
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return bytes;
}

test("what was written is read back", async () => {
  assert.equal(await accepts(file), "right");
  const header = parseHeader(file.subarray(0, headerBytes), file.byteLength);
  assert.equal(header.label, "répertoire");
  assert.equal(header.toTokens, 640);
});

test("every flipped bit of the header is seen", async () => {
  for (let bit = 0; bit < headerBytes * 8; bit += 1) {
    assert.equal(await accepts(flipped(bit)), "refused", `bit ${String(bit)}`);
  }
});

test("10,000 random flipped bits of the body are seen", async () => {
  const random = randomFrom(1);
  const bodyBits = (file.byteLength - headerBytes) * 8;
  for (let run = 0; run < 10_000; run += 1) {
    const bit = headerBytes * 8 + Math.floor(random() * bodyBits);
    assert.equal(await accepts(flipped(bit)), "refused", `bit ${String(bit)}`);
  }
});

test("every cut of the header, 1,000 of the body, and bytes behind the end are seen", async () => {
  const random = randomFrom(2);
  const cuts = Array.from({ length: headerBytes + 1 }, (_, length) => length);
  for (let run = 0; run < 1_000; run += 1) cuts.push(Math.floor(random() * file.byteLength));
  for (const length of [...cuts, file.byteLength - 1]) {
    assert.equal(await accepts(file.subarray(0, length)), "refused", `${String(length)} bytes`);
  }
  assert.equal(await accepts(Buffer.concat([file, Buffer.alloc(1)])), "refused");
});

test("property: behind a right checksum any header is refused or says of its file what is true", () => {
  const change = fc.record({
    at: fc.integer({ min: 0, max: headerBytes - 33 }),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
  });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.nat(1 << 20), (changes, fileBytes) => {
      const header = Buffer.from(file.subarray(0, headerBytes));
      for (const { at, bytes } of changes) header.set(bytes.subarray(0, headerBytes - 32 - at), at);
      header.write(sha256(header.subarray(0, headerBytes - 32)), headerBytes - 32, "hex");
      for (const length of [fileBytes, file.byteLength]) {
        try {
          const parsed = parseHeader(header, length);
          const sum = sectionNames.reduce((bytes, section) => bytes + parsed.sections[section].bytes, headerBytes);
          assert.equal(sum, length);
          assert.ok(parsed.fromTokens < parsed.toTokens);
        } catch (cause) {
          assert.ok(cause instanceof RingsideFailure && cause.error.kind === "file-malformed", String(cause));
        }
      }
    }),
    { numRuns: 5_000 },
  );
});

test("property: any bytes are refused as a header", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2 * headerBytes }), (bytes) => {
      assert.throws(
        () => parseHeader(bytes, bytes.byteLength),
        (cause: unknown) => cause instanceof RingsideFailure && cause.error.kind === "file-malformed",
      );
    }),
    { numRuns: 2_000 },
  );
});

test("a file of another model, build or format of keys and values is never used", async () => {
  const disk = new MemoryDisk();
  disk.names.set(fileName, { bytes: file });
  for (const other of [
    { ...model, identity: sha256(Buffer.from("another")) },
    { ...model, stateBytes: model.stateBytes - 4 },
    { ...model, pageBytes: model.pageBytes * 2 },
    { ...model, contextTokens: 576 },
  ]) {
    disk.names.set(fileName, { bytes: file });
    const store = await SnapshotStore.open({ disk, limitBytes: 1e9 });
    assert.equal(await store.get(other, name.key), null);
  }
});
