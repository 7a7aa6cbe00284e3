// Owns: the whole table of CPU figures, measured in one go on a quiet machine: each run's command line, its result file and
// what of it is compared with which target. docs/PERFORMANCE.md says what the figures mean.
// Must never invent a figure: what was not run, or has no result, is printed as missing.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { at } from "./paths.mjs";
import { Explained, isMain, main, say } from "./process.mjs";
import { setUp } from "./setup.mjs";

const usage = `node scripts/bench-cpu.mjs [--peer DIR] [--checkpoint DIR] [options]

  --peer DIR        folder of the side-by-side harness (peer-llama.mjs); without it the ratios are left out
  --checkpoint DIR  a 4-bit checkpoint of the mini shape, for loading and the peak memory; without it those are left out
  --threads N       of the mini runs (default 2); the nano runs take 1 and N
  --reps N          rounds of each run, at least 3 for figures worth keeping (default 3)
  --under PROGRAM   what each command is started with, for one a lock that keeps others off the machine meanwhile
  --only NAMES      runs to do, by name, with commas
  --out DIR         where results are kept (default build/bench); what is there, a run or a round of it beside the
                    peer, is not repeated
  --append          add the rows to docs/bench/
  --dry-run         print the commands, those of folders that were not given too, and stop`;

const tool = at("build", "native", "ringside-tool");
const cli = at("dist", "cli.js");

/** The last function of each file of the sample repository. */
const quotedFunctions = [
  ...["countWorkdays", "formatAmount", "largestDebtors", "articlesToReorder", "mergeLedgers", "invoiceFooter"],
  ...["packParcels", "countriesWithRateFrom"],
];

/** One run: what it measures, and the command line behind it. */
function runs({ threads, reps, peer, checkpoint }) {
  const side = (name, options, own) => ({
    name,
    isPeer: true,
    rounds: reps,
    command: [
      ...[process.execPath, path.join(peer ?? "", "peer-llama.mjs"), ...options],
      ...["--reps", "1", "--vs", `${tool} bench --json --reps 1${own}`],
    ],
  });
  const mini = (shape, ...more) => [
    ...["--shape", shape, "--quant", "q4_0", "--threads", String(threads), "--generate", "64", ...more],
  ];
  const miniAtDepth = ["--prompt", "512", "--depths", "0,4096"];
  const nano = (count) => [
    ...["--shape", "nano-softmax", "--quant", "q8_0", "--threads", String(count), "--prompt", "512"],
    ...["--generate", "64", "--depths", "0,4096"],
  ];
  const own = (name, ...options) => ({
    name,
    isPeer: false,
    command: [tool, "bench", "--json", "--threads", String(threads), "--reps", String(reps), ...options],
  });
  const align = (name, ...options) => ({
    name,
    isPeer: false,
    isReport: true,
    command: [process.execPath, cli, "bench", "--align", "--json", "--tokens", "512", ...options],
  });
  const lookup = (name, ...options) => ({
    name,
    isPeer: false,
    isReport: true,
    command: [
      ...[process.execPath, cli, "bench", "--lookup", "--json", "--threads", String(threads), "--reps", String(reps)],
      ...["--repo", at("test", "workbench", "workspace"), ...options],
      ...quotedFunctions.flatMap((called) => ["--question", `Show me the code of ${called}.`]),
    ],
  });
  const miniOwn = ["--shape", "mini", "--quant", "q4"];
  const toDepth = "--prompt 0 --generate 64 --depths 0,32768".split(" ");
  const list = [
    side("mini-softmax", mini("mini-softmax", ...miniAtDepth), ""),
    side("mini-softmax-same-head", mini("mini-softmax", "--same-head", "--prompt", "0", "--depths", "0"), " --head 4"),
    side("mini-lightning", mini("mini-lightning", ...miniAtDepth), ""),
    side("mini-lightning-256", mini("mini-lightning", ...miniAtDepth, "--batch", "256"), ""),
    side("nano-softmax-1", nano(1), ""),
    side(`nano-softmax-${String(threads)}`, nano(threads), ""),
    own("mini-pp512", ...miniOwn, "--prompt", "512", "--generate", "0", "--depths", "0"),
    own("mini-pp4096", ...miniOwn, "--prompt", "4096", "--generate", "0", "--depths", "0"),
    own("mini-depth", ...miniOwn, ...toDepth),
    own("mini-depth-kv8", ...miniOwn, "--kv", "q8", ...toDepth),
    own("nano-sequences", ..."--shape nano --prompt 0 --generate 64 --depths 512 --sequences 8".split(" ")),
    align("align"),
    align("align-kv8", "--kv", "q8"),
    lookup("lookup"),
    lookup("lookup-answer", "--effort", "off"),
  ];
  if (checkpoint !== undefined) {
    list.push({
      name: "mini-load",
      isPeer: false,
      isReport: true,
      command: [
        ...[tool, "load", "--json", "--model", checkpoint, "--threads", String(threads), "--rounds", String(reps)],
      ],
    });
  }
  return list.filter(({ isPeer }) => !isPeer || peer !== undefined);
}

/** What the issue of the CPU engine asks for, from the results by name; `value` gives undefined where one is missing. */
function figures({ threads, checkpoint }) {
  const ratio = (name, test, depth) => (of) =>
    of(name)?.summary?.find((line) => line.test === test && line.depth === depth)?.ratio_median;
  const least = (names, test, depth) => (of) => {
    const found = names.map((name) => ratio(name, test, depth)(of)).filter((value) => value !== undefined);
    return found.length === names.length ? Math.min(...found) : undefined;
  };
  const row = (name, test, depth, key) => (of) =>
    of(name)?.find?.((line) => line.test === test && line.depth === depth)?.[key];
  // Of each engine its better thread count.
  const best = (test, depth) => (of) => {
    const lines = ["nano-softmax-1", `nano-softmax-${String(threads)}`].map((name) =>
      of(name)?.summary?.find((line) => line.test === test && line.depth === depth),
    );
    if (lines.some((line) => line?.vs_median === undefined)) return undefined;
    return Math.max(...lines.map((line) => line.vs_median)) / Math.max(...lines.map((line) => line.median));
  };
  const lost = (name) => (of) => {
    const [before, after] = [0, 32768].map((depth) => row(name, "tg64", depth, "tok_s")(of));
    return before === undefined || after === undefined ? undefined : 100 * (1 - after / before);
  };
  const aligned = (name, key, pick) => (of) => {
    const paths = of(name)?.paths;
    return paths === undefined ? undefined : pick(...paths.map((one) => one[key]));
  };
  const memory = (of) => {
    const [peak, mapped] = ["peak_rss_bytes", "rss_file_bytes"].map((key) => row("mini-depth", "tg64", 32768, key)(of));
    if (peak === undefined || mapped === undefined || checkpoint === undefined) return undefined;
    return (peak - mapped - folderBytes(checkpoint)) / 1e9;
  };
  const lightning = ["mini-lightning", "mini-lightning-256"];
  return [
    ["mini 4-bit pp512 to mini-softmax", ">=", 2.5, ratio("mini-softmax", "pp512", 0)],
    ["mini 4-bit pp512 at 4096 to mini-softmax", ">=", 3, ratio("mini-softmax", "pp512", 4096)],
    ["mini 4-bit pp512 at 4096 to mini-lightning", ">=", 2.8, least(lightning, "pp512", 4096)],
    ["mini 4-bit tg64 to mini-softmax, 8-bit head", ">=", 1.2, ratio("mini-softmax", "tg64", 0)],
    ["mini 4-bit tg64 to mini-softmax, 4-bit heads", ">=", 1.4, ratio("mini-softmax-same-head", "tg64", 0)],
    ["mini 4-bit tg64 to mini-lightning", ">=", 1.8, least(lightning, "tg64", 0)],
    ["mini 4-bit tg64 at 4096 to mini-softmax", ">=", 2.2, ratio("mini-softmax", "tg64", 4096)],
    ["mini 4-bit tg64 at 4096 to mini-lightning", ">=", 2, least(lightning, "tg64", 4096)],
    ["decode, % of read bandwidth", ">=", 85, row("mini-depth", "tg64", 0, "roofline_pct")],
    ["pp512, % of the roofline", ">=", 35, row("mini-pp512", "pp512", 0, "roofline_pct")],
    ["pp4096, % of the roofline", ">=", 50, row("mini-pp4096", "pp4096", 0, "roofline_pct")],
    ["nano8 8-bit pp512 to nano-softmax", ">=", 1.5, best("pp512", 0)],
    ["nano8 8-bit tg64 to nano-softmax", ">=", 1.3, best("tg64", 0)],
    ["nano8 8-bit tg64 at 4096 to nano-softmax", ">=", 3, best("tg64", 4096)],
    ["decode speed lost to depth 32768, bf16 KV, %", "<", 28, lost("mini-depth")],
    ["decode speed lost to depth 32768, 8-bit KV, %", "<", 17, lost("mini-depth-kv8")],
    ["8 nano sequences at depth 512, ratio to one", ">=", 2.5, row("nano-sequences", "tg64x8", 512, "to_one")],
    ["mean KL to the reference, nano", "<=", 1e-3, aligned("align", "mean_kl", Math.max)],
    ["top-1 agreement with the reference, nano", ">=", 0.99, aligned("align", "top1", Math.min)],
    ["mean KL to the reference, nano, 8-bit KV", "", undefined, aligned("align-kv8", "mean_kl", Math.max)],
    ["prompt lookup, nano, reasoning and answer, ratio", ">=", 2, (of) => of("lookup")?.ratio],
    ["prompt lookup, nano, answer alone, ratio", ">=", 2, (of) => of("lookup-answer")?.ratio],
    ["load of mini 4-bit to first touch", "<=", 1.3, (of) => of("mini-load")?.ratio],
    ["peak memory to depth 32768 over file size, GB", "<=", 1.2, memory],
  ];
}

function folderBytes(folder) {
  return fs.readdirSync(folder).reduce((sum, name) => sum + fs.statSync(path.join(folder, name)).size, 0);
}

function measure({ name, isPeer, rounds, command }, { out, under }) {
  const file = path.join(out, `${name}.json`);
  if (fs.existsSync(file)) return say(`${name}: already there`);
  if (!isPeer) return start(name, [...under, ...command], (text) => fs.writeFileSync(file, text));
  // Each round by itself, so that others need to keep off the machine for one at a time.
  const files = Array.from({ length: rounds }, (_, index) => path.join(out, `${name}.${String(index + 1)}.json`));
  for (const [index, of] of files.entries()) {
    if (fs.existsSync(of)) continue;
    start(`${name}, round ${String(index + 1)}`, [...under, ...command, "--seed", String(index + 1), "--json", of]);
  }
  if (!files.every((of) => fs.existsSync(of))) return;
  const results = files.map((of) => JSON.parse(fs.readFileSync(of, "utf8")));
  fs.writeFileSync(file, `${JSON.stringify(together(results), null, 1)}\n`);
}

function start(name, command, keep = () => undefined) {
  say(`${name}: ${command.join(" ")}`);
  const [program, ...args] = command;
  const result = spawnSync(program, args, { stdio: ["ignore", "pipe", "inherit"], maxBuffer: 1 << 26 });
  // A report that finds paths apart is a result too.
  if (result.error !== undefined || (result.status !== 0 && result.stdout.length === 0)) {
    return say(`${name}: failed (${result.error?.message ?? `exit code ${String(result.status)}`})`);
  }
  keep(result.stdout);
}

/** Results of single rounds of the harness as one of several: all rows, and of each test the medians over the rounds. */
function together(results) {
  const numbered = (list, index, key) => (list ?? []).map((one) => ({ ...one, [key]: index + 1 }));
  const summary = results[0].summary.map(({ test, depth }) => {
    const lines = results.flatMap((of) => of.summary.filter((line) => line.test === test && line.depth === depth));
    const speeds = lines.map((line) => line.median);
    return {
      ...{ test, depth, reps: lines.length, median: median(speeds) },
      ...{ min: Math.min(...speeds), max: Math.max(...speeds) },
      disturbed: lines.reduce((sum, line) => sum + line.disturbed, 0),
      ...{ vs_median: median(lines.map((line) => line.vs_median)), ratios: lines.map((line) => line.ratio_median) },
      ratio_median: median(lines.map((line) => line.ratio_median)),
    };
  });
  return {
    ...results[0],
    rows: results.flatMap((of, index) => numbered(of.rows, index, "rep")),
    command: { rounds: results.flatMap((of, index) => numbered(of.command.rounds, index, "round")) },
    summary,
  };
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function append({ name, isPeer, isReport }, out) {
  const file = path.join(out, `${name}.json`);
  if (isReport || !fs.existsSync(file)) return;
  const options = isPeer ? ["--peer", file] : ["--rows", file];
  const note = name.endsWith("same-head") ? ["--peer-note", "same head"] : [];
  const { status } = spawnSync(process.execPath, [cli, "bench", "--append", ...options, ...note], { stdio: "inherit" });
  if (status !== 0) throw new Explained(`${name}: its rows were not added`);
}

function report(settings) {
  const of = (name) => {
    const file = path.join(settings.out, `${name}.json`);
    return fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : undefined;
  };
  for (const [title, sign, target, value] of figures(settings)) {
    const found = value(of);
    const met = { ">=": found >= target, "<=": found <= target, "<": found < target }[sign];
    const verdict = found === undefined ? "missing" : met === undefined ? "" : met ? "met" : "NOT met";
    const shown = found === undefined ? "-" : String(Number(found.toPrecision(4)));
    process.stdout.write(
      `${title.padEnd(48)} ${`${sign} ${String(target ?? "")}`.padStart(8)} ${shown.padStart(10)}  ${verdict}\n`,
    );
  }
}

if (isMain(import.meta)) {
  void main(async () => {
    const { values } = parseArgs({
      options: {
        peer: { type: "string" },
        checkpoint: { type: "string" },
        threads: { type: "string", default: "2" },
        under: { type: "string", default: "" },
        reps: { type: "string", default: "3" },
        only: { type: "string" },
        out: { type: "string", default: at("build", "bench") },
        append: { type: "boolean", default: false },
        "dry-run": { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) return process.stdout.write(`${usage}\n`);
    const full = (folder) => (folder === undefined ? undefined : path.resolve(folder));
    const isDry = values["dry-run"];
    const settings = {
      ...{ threads: Number(values.threads), reps: Number(values.reps), out: path.resolve(values.out) },
      under: values.under.split(" ").filter((word) => word !== ""),
      peer: full(values.peer) ?? (isDry ? "PEER" : undefined),
      checkpoint: full(values.checkpoint) ?? (isDry ? "MINI" : undefined),
    };
    const wanted = values.only?.split(",");
    const chosen = runs(settings).filter(({ name }) => wanted === undefined || wanted.includes(name));
    if (chosen.length === 0) throw new Explained(`There is no such run.\n${usage}`);
    if (isDry) {
      for (const { command } of chosen) {
        process.stdout.write(`${command.map((part) => (/ /.test(part) ? `'${part}'` : part)).join(" ")}\n`);
      }
      return;
    }
    await setUp(); // What is measured is today's code.
    fs.mkdirSync(settings.out, { recursive: true });
    for (const run of chosen) measure(run, settings);
    if (values.append) for (const run of chosen) append(run, settings.out);
    report(settings);
  });
}
