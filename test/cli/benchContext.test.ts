// `bench --context` with the real engine: what it measures is what the documents promise of tokens, and nothing of it stays behind.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { test } from "node:test";
import { contextColumns } from "../../src/cli/benchTable";
import { folderWith } from "../context/folders";
import { root } from "../engine/engineUnderTest";
import { ringside } from "./installation";

interface Row {
  readonly test: string;
  readonly ms?: number;
  readonly base_tokens?: number;
  readonly read_tokens?: number;
  readonly reread_tokens?: number;
}

const workspace = path.join(root, "test", "workbench", "workspace");
const leftovers = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith("ringside-bench-"));

test("a second question reads fewer than 64 tokens besides itself, a restarted engine too", async (t) => {
  const before = leftovers();
  const { exitCode, out, err } = await ringside("bench", "--context", "--json", "--repo", workspace);
  assert.equal(exitCode, 0, err);
  const rows = JSON.parse(out) as readonly Row[];
  const of = (name: string): Row => rows.find((row) => row.test === name) ?? assert.fail(`${name} in ${out}`);
  for (const row of rows) {
    for (const column of Object.keys(row)) assert.ok(contextColumns.includes(column), column);
  }
  const cold = of("cold");
  assert.ok((cold.base_tokens ?? 0) > 2_000 && (cold.read_tokens ?? 0) >= (cold.base_tokens ?? 0), out);
  for (const name of ["warm", "restart"]) {
    t.diagnostic(`${name}: ${String(of(name).reread_tokens)} tokens read again`);
    assert.ok((of(name).reread_tokens ?? 64) < 64, out);
  }
  for (const row of rows) assert.ok(row.test === "snapshots" || (row.ms ?? 0) > 0, JSON.stringify(row));
  assert.deepEqual(leftovers(), before);
});

test("a repository without text ends the bench with a sentence", async (t) => {
  const { exitCode, out, err } = await ringside("bench", "--context", "--json", "--repo", folderWith(t, {}));
  assert.equal(exitCode, 1);
  assert.equal(out, "");
  assert.match(err, /\S/);
  assert.equal((await ringside("bench", "--context")).exitCode, 2);
  assert.equal((await ringside("bench", "--context", "--append", "--repo", workspace)).exitCode, 2);
});
