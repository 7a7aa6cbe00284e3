// The tables of measured speeds: older rows stay valid, and a result of the side-by-side harness becomes rows.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import { ownRows, peerRows } from "../../src/cli/benchFiles";
import { contextColumns, tableColumns, tableName, widened } from "../../src/cli/benchTable";

test("a table of fewer columns keeps its rows, filled up", () => {
  const [first = "", second = ""] = tableColumns;
  const [header, ...rows] = widened(`${first},${second}\nabc,2026-11-24\n`);
  assert.equal(header, tableColumns.join(","));
  assert.deepEqual(rows, [`abc,2026-11-24${",".repeat(tableColumns.length - 2)}`]);
  assert.deepEqual(widened([header, ...rows, ""].join("\n")), [header, ...rows]);
  assert.deepEqual(widened(""), [header]);
});

test("a processor's table has its whole name, a card's the part that tells it from others", () => {
  assert.equal(tableName("intel-xeon-processor"), "intel-xeon-processor.csv");
  assert.equal(tableName("nvidia-h200"), "h200.csv");
  assert.equal(tableName("nvidia-h100-80gb-hbm3"), "h100.csv");
  assert.equal(tableName("nvidia-geforce-rtx-4070-ti-super"), "rtx-4070-ti-super.csv");
  assert.equal(tableName("nvidia-a100-sxm4-80gb"), "a100.csv");
});

test("every table in docs/bench begins with today's columns or fewer of them, and its rows have as many cells", () => {
  const folder = path.join(__dirname, "..", "..", "docs", "bench");
  const tables = readdirSync(folder).filter((name) => name.endsWith(".csv"));
  assert.ok(tables.length > 0);
  for (const name of tables) {
    const [header = "", ...rows] = readFileSync(path.join(folder, name), "utf8").trimEnd().split("\n");
    const columns = name.endsWith("-context.csv") ? contextColumns : tableColumns;
    assert.ok(columns.join(",").startsWith(header), name);
    for (const row of rows) assert.equal(row.split(",").length, header.split(",").length, row);
  }
});

test("a harness result gives one row a test and depth: its ratio, and the medians of our rows of all rounds", () => {
  const round = (tokS: number, pct: number): unknown => ({
    rows: [
      { test: "pp512", depth: 0, tok_s: tokS, roofline_pct: pct, shape: "mini", quant: "q4", reps: [1, 2] },
      { test: "pp512", depth: 4096, tok_s: 1, roofline_pct: 1 },
    ],
  });
  const rows = peerRows(
    {
      engine: "llama.cpp",
      shape: "mini-softmax",
      quant: "q4_0",
      info: { batch: 256 },
      summary: [
        { test: "pp512", depth: 0, reps: 3, disturbed: 1, median: 100, vs_median: 320, ratio_median: 3.1 },
        { test: "tg64", depth: 0, median: 20 },
      ],
      command: { rounds: [round(300, 30), round(340, 34), round(320, 36)] },
    },
    "same head",
  );
  assert.equal(rows.length, 1);
  const [row = {}] = rows;
  assert.equal(row["tok_s"], 320);
  assert.equal(row["roofline_pct"], 34);
  assert.equal(row["peer"], "llama.cpp mini-softmax q4_0 batch 256 same head");
  assert.equal(row["peer_tok_s"], 100);
  assert.equal(row["ratio"], 3.1);
  assert.equal(row["shape"], "mini");
  assert.equal(row["disturbed"], "1/3");
});

test("anything else than a list of rows or a harness result gives no rows", () => {
  for (const value of [null, 1, "text", [], {}, { summary: [null, { test: 1 }] }, { command: { rounds: 3 } }]) {
    assert.deepEqual(peerRows(value, ""), []);
    assert.deepEqual(ownRows(value), []);
  }
});
