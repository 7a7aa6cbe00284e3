// The command line as a program: the bundle, the host process, the addon and the embedded model, by exit code, output and words.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import type { LookupReport } from "../../src/cli/benchLookup";
import { root, scratchFolder, tinyModel } from "../engine/engineUnderTest";
import { installation, ringsideGiven } from "./installation";
import type { Ended } from "./installation";

const ringside = (arguments_: readonly string[], input = ""): Promise<Ended> => ringsideGiven(input, ...arguments_);

const commands = ["ask", "pack", "tokenize", "detokenize", "logits", "quantize", "bench", "snapshots", "roofline"];

test("help says what there is, of the program and of each command", async () => {
  const help = await ringside(["--help"]);
  assert.equal(help.exitCode, 0);
  for (const name of commands) {
    assert.ok(help.out.includes(name), name);
    const { exitCode, out, err } = await ringside([name, "--help"]);
    assert.equal(exitCode, 0, name);
    assert.ok(out.startsWith(`ringside ${name}`), out);
    assert.equal(err, "");
  }
});

test("wrong usage is exit code 2, with a way out on standard error and nothing on standard output", async () => {
  const wrong = [[], ["nonsense"], ["--nonsense"], ["logits"], ["quantize", "one"], ["tokenize", "--threads", "many"]];
  for (const arguments_ of [...wrong, ...commands.map((name) => [name, "--no-such-option"])]) {
    const { exitCode, out, err } = await ringside(arguments_);
    assert.equal(exitCode, 2, arguments_.join(" "));
    assert.equal(out, "");
    assert.match(err, /--help/);
  }
});

test("text to ids and back, whole and by lines", async () => {
  const text = "const ß = 1;\n\tfunction <think>() {}\n";
  const model = ["--model", tinyModel()];
  const ids = await ringside(["tokenize", ...model], text);
  assert.equal(ids.exitCode, 0, ids.err);
  assert.equal((JSON.parse(ids.out) as number[]).length > 10, true);
  const back = await ringside(["detokenize", ...model], ids.out);
  assert.equal(back.out, text);
  assert.equal((await ringside(["detokenize", "--json", ...model], ids.out)).out, `${JSON.stringify(text)}\n`);

  const special = await ringside(["tokenize", "--special", ...model], "<think>");
  assert.equal((JSON.parse(special.out) as number[]).length, 1);
  const lines = await ringside(["tokenize", "--lines", ...model], `"abc"\n"a\\nb"\n""\n`);
  assert.equal(lines.out.trimEnd().split("\n").length, 3);
  assert.equal((await ringside(["detokenize", "--lines", ...model], lines.out)).out, `"abc"\n"a\\nb"\n""\n`);
});

test("logits of a file of ids, the same for any split", async () => {
  const file = path.join(scratchFolder("ids"), "ids.json");
  const ids = Array.from({ length: 150 }, (_, index) => (index * 7) % 500);
  writeFileSync(file, JSON.stringify(ids));
  const model = ["--model", tinyModel(), "--json"];
  const whole = await ringside(["logits", "--tokens", file, ...model]);
  assert.equal(whole.exitCode, 0, whole.err);
  const logits = JSON.parse(whole.out) as Record<"argmax" | "logprobs" | "last", number[]>;
  assert.equal(logits.argmax.length, 150);
  assert.equal(logits.logprobs.length, 149);
  assert.equal(logits.last.length, 512);
  assert.equal((await ringside(["logits", "--tokens", file, "--split", "100,1,20", ...model])).out, whole.out);
});

test("what cannot be done is exit code 1 and one sentence", async () => {
  const folder = scratchFolder("wrong");
  const broken = path.join(folder, "ids.json");
  writeFileSync(broken, '[1, "2"]');
  const cases: readonly (readonly [arguments_: readonly string[], input: string, words: RegExp])[] = [
    [["tokenize", "--model", path.join(folder, "none")], "x", /does not exist/],
    [["tokenize", "--lines", "--model", tinyModel()], "x\n", /line 1/],
    [["detokenize", "--model", tinyModel()], "[511000]", /vocabulary/],
    [["detokenize", "--model", tinyModel()], "[-1]", /token id/],
    [["logits", "--tokens", path.join(folder, "none.json")], "", /does not exist/],
    [["logits", "--tokens", broken], "", /item 1/],
  ];
  for (const [arguments_, input, words] of cases) {
    const { exitCode, out, err } = await ringside(arguments_, input);
    assert.equal(exitCode, 1, `${arguments_.join(" ")}: ${err}`);
    assert.equal(out, "");
    assert.match(err, words);
    assert.equal(err.trimEnd().split("\n").length, 1, err);
  }
});

test("the native tool's commands pass its output and exit code through", async () => {
  const measured = await ringside([
    "bench",
    "--json",
    ...["--shape", "nano", "--quant", "q8", "--prompt", "32", "--generate", "4", "--depths", "0", "--reps", "1"],
  ]);
  assert.equal(measured.exitCode, 0, measured.err);
  const rows = JSON.parse(measured.out) as readonly { readonly test: string; readonly tok_s: number }[];
  assert.deepEqual(
    rows.map(({ test: name }) => name),
    ["pp32", "tg4"],
  );
  assert.ok(rows.every(({ tok_s }) => tok_s > 0));
  const several = await ringside([
    "bench",
    "--json",
    ...["--prompt", "16,32", "--sequences", "1,2,4", "--generate", "2", "--depths", "0,64", "--reps", "1"],
  ]);
  assert.equal(several.exitCode, 0, several.err);
  assert.deepEqual(
    (JSON.parse(several.out) as readonly { readonly test: string; readonly depth: number }[]).map(
      ({ test: name, depth }) => `${name} ${String(depth)}`,
    ),
    [0, 64].flatMap((depth) => ["pp16", "pp32", "tg2", "tg2x2", "tg2x4"].map((name) => `${name} ${String(depth)}`)),
  );
  const failed = await ringside([
    "quantize",
    path.join(installation, "none"),
    path.join(installation, "out"),
    "--bits",
    "8",
  ]);
  assert.equal(failed.exitCode, 1);
  assert.notEqual(failed.err, "");
});

test("bench --append adds one row a median to the device's table", async () => {
  const options = [
    "--shape",
    "nano",
    "--quant",
    "q8",
    "--prompt",
    "16",
    "--generate",
    "2",
    "--depths",
    "0",
    "--reps",
    "1",
  ];
  const { exitCode, err } = await ringside(["bench", "--append", ...options]);
  assert.equal(exitCode, 0, err);
  const table = /rows added to (.*)\n/.exec(err)?.[1] ?? "";
  const [header, ...rows] = readFileSync(path.join(installation, table), "utf8").trimEnd().split("\n");
  const columns = (header ?? "").split(",");
  assert.equal(
    columns.slice(0, 15).join(","),
    "commit,date,device,backend,shape,quant,threads,test,depth,tok_s,gb_s,roofline_pct,peer,peer_tok_s,ratio",
  );
  assert.equal(rows.length, 2);
  for (const row of rows) {
    const cells = row.split(",");
    assert.equal(cells.length, columns.length);
    const of = (column: string): string => cells[columns.indexOf(column)] ?? "";
    assert.equal(`${path.basename(table, ".csv")},cpu,nano,q8`, cells.slice(2, 6).join(","));
    assert.equal(of("kv"), "bf16");
    for (const column of ["threads", "tok_s", "roofline_pct", "bytes", "distinct_experts", "peak_rss_bytes"]) {
      assert.ok(Number(of(column)) > 0, `${column}: ${row}`);
    }
  }

  // A result of the harness is added to the same table, with its own ratios.
  const result = path.join(scratchFolder("peer"), "result.json");
  const own = { test: "tg2", depth: 0, tok_s: 30, device: "Name CPU, avx2, 2 threads", shape: "nano8", quant: "q8" };
  const summary = [{ test: "tg2", depth: 0, median: 20, vs_median: 31, ratio_median: 1.5 }];
  writeFileSync(
    result,
    JSON.stringify({ engine: "peer", shape: "nano-softmax", summary, command: { rounds: [{ rows: [own] }] } }),
  );
  const peer = await ringside(["bench", "--append", "--peer", result]);
  assert.equal(peer.exitCode, 0, peer.err);
  const peerTable = readFileSync(path.join(installation, /rows added to (.*)\n/.exec(peer.err)?.[1] ?? ""), "utf8");
  assert.match(peerTable, /,name-cpu,,nano8,q8,,tg2,0,31,,,peer nano-softmax,20,1\.5,/);
  assert.equal((await ringside(["bench", "--peer", result])).exitCode, 2);
  // Rows of a card that were measured elsewhere, on a commit of their own.
  const card = { test: "tg64", depth: 0, tok_s: 800, device: "NVIDIA H200, sm_90", shape: "mini", quant: "q8" };
  writeFileSync(result, JSON.stringify([{ ...card, limit_gb_s: 4200 }]));
  const rowsOfCard = await ringside(["bench", "--append", "--rows", result, "--commit", "abc1234"]);
  assert.equal(rowsOfCard.exitCode, 0, rowsOfCard.err);
  assert.match(rowsOfCard.err, /h200\.csv/);
  const cardTable = readFileSync(path.join(installation, "docs", "bench", "h200.csv"), "utf8");
  assert.match(cardTable, /\nabc1234,[-0-9]+,nvidia-h200,,mini,q8,,tg64,0,800,.*,4200,,\n/);
  writeFileSync(result, "{}");
  const empty = await ringside(["bench", "--append", "--peer", result]);
  assert.equal(empty.exitCode, 1);
  assert.match(empty.err, /result\.json/);
});

test("bench --align reports what the fast paths lose to the reference, and that they are one", async () => {
  const text = path.join(scratchFolder("text"), "text.txt");
  writeFileSync(text, readFileSync(path.join(root, "CONTRIBUTING.md")));
  const { exitCode, out, err } = await ringside([
    "bench",
    "--align",
    "--json",
    "--model",
    tinyModel(),
    "--text",
    text,
    "--tokens",
    "80",
    ...["--kv", "f32"],
  ]);
  assert.equal(exitCode, 0, err);
  const report = JSON.parse(out) as {
    readonly tokens: number;
    readonly identical: boolean;
    readonly paths: readonly Record<"positions" | "mean_kl" | "top1" | "different_rows", number>[];
    readonly layers: readonly Record<"attention" | "mlp" | "residual" | "router", number>[];
  };
  assert.equal(report.tokens, 80);
  assert.equal(report.identical, true);
  assert.equal(report.paths.length, 3);
  for (const { positions, mean_kl, top1, different_rows } of report.paths) {
    assert.ok(positions >= 80 && mean_kl < 1e-6 && top1 === 1 && different_rows === 0, out);
  }
  assert.ok(report.layers.length > 0 && report.layers.every(({ residual }) => residual > 0 && residual < 1e-4), out);
  const missing = await ringside(["bench", "--align", "--model", tinyModel(), "--text", `${text}.none`]);
  assert.equal(missing.exitCode, 1);
  assert.match(missing.err, /none/);
  assert.equal((await ringside(["bench", "--align", "--append"])).exitCode, 2);
});

test("bench --lookup answers each question with the same tokens twice, and tells how many drafts were right", async () => {
  const repo = path.join(root, "test", "workbench", "workspace");
  const questions = ["includedTax", "packParcels"].flatMap((name) => ["--question", `Show me the code of ${name}.`]);
  const options = ["--json", "--effort", "off", "--generate", "100", "--reps", "1"];
  const { exitCode, out, err } = await ringside(["bench", "--lookup", "--repo", repo, ...questions, ...options]);
  assert.equal(exitCode, 0, err);
  const report = JSON.parse(out) as LookupReport;
  assert.equal(report.identical, true);
  assert.equal(report.questions, 2);
  assert.ok(report.tokens > 20 && report.tokens <= 200, out);
  assert.ok(report.accepted > 0 && report.accepted <= report.drafted && report.accepted < report.tokens, out);
  assert.ok(report.tok_s > 0 && report.tok_s_without > 0 && report.ratios.length === 1, out);
  for (const wrong of [["--repo", repo], questions, ["--repo", repo, ...questions, "--append"]]) {
    assert.equal((await ringside(["bench", "--lookup", ...wrong])).exitCode, 2, wrong.join(" "));
  }
});
