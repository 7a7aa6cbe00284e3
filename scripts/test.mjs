// Owns: `npm test`: every check there is, one step after the other, each with its time. A step that fails does not hide the
// next ones. The last line counts what passed and what failed. Must never skip a step without saying so.
import os from "node:os";
import path from "node:path";
import { listFiles } from "./freshness.mjs";
import { armTests } from "./native-arm.mjs";
import { buildCudaTests, cudaTests, findNvcc, testedArchitectures } from "./native-cuda.mjs";
import { buildSanitized } from "./native.mjs";
import { expectedVsixFiles, filesInZip, packageVsix } from "./package.mjs";
import { addonFile, at, cudaLibraryFile, vsixFile } from "./paths.mjs";
import { isMain, run, say, seconds } from "./process.mjs";
import { setUp } from "./setup.mjs";
import { canInstall, ensurePrograms, programFor } from "./system-packages.mjs";
import { rooms, typecheck } from "./typecheck.mjs";

/** A step that takes longer hangs. */
const stepLimitMs = 2_700_000;

/** The version whose layout the sources have; others break some lines differently. */
const clangFormatMajor = "14";

/** Native tests that are left out of the sanitizer build, each with the reason. */
const notSanitized = {};

const one = { passed: 1, failed: 0 };
const tool = (...parts) => at("node_modules", ...parts);
const jobs = String(Math.max(2, os.availableParallelism()));

/** Runs a program and counts its results from its output, whether it succeeded or not. */
async function counted(command, args, count, options = {}) {
  const start = { limitMs: stepLimitMs, ...options };
  const { output, failure } = await run(command, args, start).then(
    (output) => ({ output, failure: null }),
    (error) => ({ output: error.output ?? "", failure: error }),
  );
  const { passed, failed } = count(output);
  if (failure === null && passed > 0 && failed === 0) return { passed, failed };
  const report = failure === null ? `No test ran.\n${output}` : `${failure.reason}\n${output}`;
  return { passed, failed: Math.max(failed, 1), report };
}

const sumOf = (output, pattern) => [...output.matchAll(pattern)].reduce((sum, match) => sum + Number(match[1]), 0);
const countNodeTests = (output) => ({
  passed: sumOf(output, /^ℹ pass (\d+)$/gm),
  failed: sumOf(output, /^ℹ fail (\d+)$/gm),
});
const countMocha = (output) => ({
  passed: sumOf(output, /^\s*(\d+) passing\b/gm),
  failed: sumOf(output, /^\s*(\d+) failing\b/gm),
});
const countNative = (output) => ({
  passed: sumOf(output, /^\d+: (\d+) passed, \d+ failed$/gm),
  failed: sumOf(output, /^\d+: \d+ passed, (\d+) failed$/gm),
});

const nodeTests = (files, options) =>
  counted(
    process.execPath,
    ["--import", "tsx", "--test", "--test-reporter=spec", ...options, ...files],
    countNodeTests,
  );

async function nativeTests(folder, options = []) {
  const args = ["--test-dir", at("build", folder), "--verbose", "--no-tests=error", "-j", jobs, ...options];
  const result = await counted("ctest", args, countNative);
  return result.report === undefined ? result : { ...result, report: linesOfFailedTests(result.report) };
}

/** ctest puts the test's number before each of its lines; those of tests that passed are of no use here. */
function linesOfFailedTests(report) {
  const numbers = [...report.matchAll(/^\s+(\d+) - \S+ \(.+\)$/gm)].map((match) => match[1]);
  const lines = report.split("\n").filter((line) => numbers.some((number) => line.startsWith(`${number}: `)));
  return numbers.length > 0 ? lines.filter((line) => !/^\d+: ok {3}/.test(line)).join("\n") : report;
}

/** The GPU backend and all its tests are compiled; the one that needs no card is run. `npm run test:gpu` runs the others. */
async function cudaStep() {
  if ((await findNvcc()) === null) return { passed: 0, failed: 0, note: "not compiled, there is no nvcc 13" };
  // Set-up has compiled what the engine's test links of the processor's side.
  const folder = await buildCudaTests(testedArchitectures, await cudaTests(), { hostBuild: at("build", "native") });
  await run(process.execPath, [at("scripts", "symbols.mjs"), at(folder, path.basename(cudaLibraryFile))]);
  const countCuda = (output) => ({
    passed: sumOf(output, /^(\d+) passed, \d+ failed$/gm),
    failed: sumOf(output, /^\d+ passed, (\d+) failed$/gm),
  });
  const result = await counted(at(folder, "cuda_pack_test"), [], countCuda);
  return { ...result, note: `compiled for ${testedArchitectures.join(", ")}; npm run test:gpu runs the rest on a GPU` };
}

const isTest = (file) => /\.test\.ts$/.test(file);
const isEndToEnd = (file) => file.startsWith("test/e2e/");
/** These run inside the extension host. */
const isWorkbench = (file) => file.startsWith("test/workbench/");

async function clangFormat() {
  if (programFor("clangFormat") === null && canInstall()) await ensurePrograms(["clangFormat"]);
  const program = programFor("clangFormat");
  if (program === null) return { passed: 0, failed: 0, note: "not checked, there is no clang-format" };
  const version = /version (\d+)/.exec(await run(program, ["--version"]))?.[1];
  if (version !== clangFormatMajor)
    return { passed: 0, failed: 0, note: `not checked, this is version ${version}, not 14` };
  const files = listFiles(["native", "test/native", "test/cuda"], (file) => /\.(cc|h|cu|cuh)$/.test(file));
  await run(program, ["--dry-run", "-Werror", ...files]).catch((error) => {
    const named = error.output.match(/^\S+?(?=:\d+:\d+: error:)/gm) ?? [error.message];
    throw new Error(`Not formatted: ${[...new Set(named)].join(", ")}`);
  });
  return one;
}

function vsixHoldsTheList() {
  const [expected, found] = [expectedVsixFiles(), filesInZip(vsixFile)];
  const missing = expected.filter((file) => !found.includes(file));
  const extra = found.filter((file) => !expected.includes(file));
  if (missing.length + extra.length > 0)
    throw new Error(`VSIX: missing ${missing.join(", ")}; not listed ${extra.join(", ")}`);
  return { ...one, note: `${found.length} files` };
}

/** Name, title and work of each step, in order. Work returns counts, or throws. */
const steps = [
  ["setup", "set-up", () => setUp({ tests: true }).then(() => one)],
  ["types", "types of every room", () => typecheck().then(() => ({ passed: rooms().length, failed: 0 }))],
  [
    "lint",
    "ESLint",
    () => run(process.execPath, [tool("eslint", "bin", "eslint.js"), "--max-warnings", "0", "."]).then(() => one),
  ],
  [
    "prettier",
    "Prettier",
    () => run(process.execPath, [tool("prettier", "bin", "prettier.cjs"), "--check", "."]).then(() => one),
  ],
  ["clang-format", "clang-format", clangFormat],
  [
    "symbols",
    "glibc floor of the addon",
    () => run(process.execPath, [at("scripts", "symbols.mjs"), addonFile]).then(() => one),
  ],
  ["native", "native tests", () => nativeTests("native")],
  [
    "sanitize",
    "native tests under ASan and UBSan",
    async () => {
      await buildSanitized();
      const names = Object.keys(notSanitized);
      return nativeTests("native-sanitize", names.length > 0 ? ["-E", `^(${names.join("|")})$`] : []);
    },
  ],
  ["cuda", "GPU backend", cudaStep],
  ["arm", "native tests for ARM under QEMU", () => armTests(os.availableParallelism())],
  [
    "rooms",
    "TypeScript tests of every room",
    () =>
      nodeTests(
        listFiles(["test"], (file) => isTest(file) && !isEndToEnd(file) && !isWorkbench(file)),
        [`--test-concurrency=${jobs}`],
      ),
  ],
  [
    "workbench",
    "Mocha in a real extension host",
    () => counted(process.execPath, [at("scripts", "workbench-suite.mjs")], countMocha),
  ],
  ["package", "VSIX and its file list", () => packageVsix().then(vsixHoldsTheList)],
  [
    "e2e",
    "end to end in a real workbench",
    () => nodeTests(listFiles(["test"], isEndToEnd).filter(isTest), ["--test-concurrency=1"]),
  ],
];

async function perform([name, title, work]) {
  const start = performance.now();
  say(`▶ ${title}`);
  const result = await Promise.resolve()
    .then(work)
    .catch((error) => ({ passed: 0, failed: 1, report: error.message }));
  const mark = result.failed === 0 ? "✓" : "✗";
  const note = result.note === undefined ? "" : `, ${result.note}`;
  say(`${mark} ${title}: ${result.passed} passed, ${result.failed} failed${note} (${seconds(start)})`);
  if (result.report !== undefined) say(result.report);
  return { name, ...result };
}

/** `--only a,b`: these steps alone. */
function chosenSteps() {
  const only = process.argv.indexOf("--only");
  if (only === -1) return steps;
  const wanted = (process.argv[only + 1] ?? "").split(",");
  const unknown = wanted.filter((name) => !steps.some(([known]) => known === name));
  if (unknown.length > 0) {
    say(`There is no step ${unknown.join(", ")}; the steps are ${steps.map(([name]) => name).join(", ")}.`);
    process.exit(2);
  }
  return steps.filter(([name]) => wanted.includes(name));
}

if (isMain(import.meta)) {
  const start = performance.now();
  // Ends by way of "exit", so that what a step started ends too.
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
  const results = [];
  for (const step of chosenSteps()) results.push(await perform(step));
  const total = (field) => results.reduce((sum, result) => sum + result[field], 0);
  const broken = results.filter((result) => result.failed > 0).map((result) => result.name);
  if (broken.length > 0) say(`Failed: ${broken.join(", ")}`);
  say(`All steps took ${seconds(start)}.`);
  console.log(`${total("passed")} passed, ${total("failed")} failed`);
  process.exitCode = broken.length > 0 ? 1 : 0;
}
