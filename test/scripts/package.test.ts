// The VSIX's list: what ships is named, and nothing that only a checkout needs.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { expectedVsixFiles, filesInZip } from "../../scripts/package.mjs";

test("names come out of a zip file's directory", () => {
  // An empty stored file "a/b", then the directory and its end, written by hand from the format's description.
  const name = Buffer.from("a/b");
  const local = Buffer.concat([
    Buffer.from("504b030414000000000000000000", "hex"),
    Buffer.alloc(12),
    u16(3),
    u16(0),
    name,
  ]);
  const central = Buffer.concat([
    Buffer.from("504b01021400140000000000000000000000", "hex"),
    Buffer.alloc(10),
    u16(3),
    Buffer.alloc(16),
    name,
  ]);
  const end = Buffer.concat([
    Buffer.from("504b050600000000", "hex"),
    u16(1),
    u16(1),
    u32(central.length),
    u32(local.length),
    u16(0),
  ]);
  const file = path.join(os.tmpdir(), `ringside-zip-${String(process.pid)}.zip`);
  fs.writeFileSync(file, Buffer.concat([local, central, end]));
  try {
    assert.deepEqual(filesInZip(file), ["a/b"]);
  } finally {
    fs.rmSync(file);
  }
});

test("the list names files, not folders or patterns, and no source", () => {
  const files: readonly string[] = expectedVsixFiles();
  assert.equal(new Set(files).size, files.length);
  for (const file of files) {
    assert.doesNotMatch(file, /[*?]|\/$/);
    assert.doesNotMatch(file, /\.(ts|mjs|cc|h|map)$|node_modules|(^|\/)test\//);
  }
});

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
