// Owns: `npm run fuzz -- [seconds] [target…]`: every parser of foreign bytes under libFuzzer with the address and
// undefined-behaviour sanitizers, starting from the stored corpus. New inputs stay in build/; one that breaks something is
// kept under test/fuzz/TARGET/found, where the corpus test runs it ever after.
import fs from "node:fs";
import os from "node:os";
import { at } from "./paths.mjs";
import { compile, configure } from "./native.mjs";
import { Explained, isMain, main, run, say, seconds } from "./process.mjs";
import { setUp } from "./setup.mjs";
import { ensurePrograms, programFor } from "./system-packages.mjs";

const fuzzTargets = ["safetensors", "config", "tokenizer", "encode", "checkpoint"];
const folder = at("build", "native-fuzz");

/** No input may hold a parser longer than this, or make it use more memory (libFuzzer's own included). */
const limits = ["-timeout=1", "-rss_limit_mb=512", "-malloc_limit_mb=256"];

async function fuzz(target, duration) {
  const corpus = at("build", "fuzz", target);
  const found = at("test", "fuzz", target, "found");
  for (const path of [corpus, found]) fs.mkdirSync(path, { recursive: true });
  const stored = ["seeds", "rejected", "accepted"].map((name) => at("test", "fuzz", target, name));
  const start = performance.now();
  const args = [`-max_total_time=${duration}`, ...limits, `-artifact_prefix=${found}/`, "-print_final_stats=1"];
  const output = await run(`${folder}/fuzz_${target}`, [...args, corpus, found, ...stored.filter(fs.existsSync)], {
    limitMs: (duration + 120) * 1000,
  });
  const executions = /stat::number_of_executed_units:\s+(\d+)/.exec(output)?.[1] ?? "?";
  const memory = /stat::peak_rss_mb:\s+(\d+)/.exec(output)?.[1] ?? "?";
  say(`ok   ${target}: ${executions} inputs, ${memory} MB, ${seconds(start)}`);
}

async function fuzzAll(duration, targets = fuzzTargets) {
  await setUp();
  await ensurePrograms(["fuzzer"]);
  await configure(folder, {
    CMAKE_CXX_COMPILER: programFor("fuzzer"),
    RINGSIDE_FUZZ: "ON",
    RINGSIDE_ADDON: "OFF",
    RINGSIDE_TESTS: "OFF",
  });
  await compile(
    folder,
    targets.map((target) => `fuzz_${target}`),
  );
  const waiting = [...targets];
  let failed = 0;
  const worker = async () => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
      await fuzz(target, duration).catch((error) => {
        failed += 1;
        say(`FAIL ${target}: ${error.message}`);
      });
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(os.availableParallelism(), targets.length)) }, worker));
  if (failed > 0) throw new Explained(`${failed} of ${targets.length} targets broke; their inputs are in test/fuzz`);
}

if (isMain(import.meta)) {
  void main(async () => {
    const [duration = "60", ...targets] = process.argv.slice(2);
    const unknown = targets.filter((target) => !fuzzTargets.includes(target));
    if (!/^[1-9]\d{0,5}$/.test(duration) || unknown.length > 0)
      throw new Explained(`usage: npm run fuzz -- [seconds] [${fuzzTargets.join("|")}]…`);
    await fuzzAll(Number(duration), targets.length > 0 ? targets : undefined);
  });
}
