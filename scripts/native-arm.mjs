// Owns: the native tests for 64-bit ARM on a machine that is none: cross-compiled, and run by QEMU's user mode. Must never
// pass for a run on hardware: QEMU shows that the results are right, not how fast they are.
import { at } from "./paths.mjs";
import { whenStale } from "./freshness.mjs";
import { compile, configure, nativeInputs } from "./native.mjs";
import { run } from "./process.mjs";
import { canInstall, ensurePrograms, programFor } from "./system-packages.mjs";

const folder = at("build", "native-arm");
const programs = ["armCompiler", "armEmulator"];
const testLimitMs = 300_000;

/**
 * What is run on which model of processor: the test, and which of its tests by a part of their names. Emulation is some
 * twenty times slower than the machine, so this is what depends on the processor: the kernels, all of them, and forward
 * passes that go through them. "max" has every instruction there is, Cortex-A76 has no SMMLA, Cortex-A53 no SDOT either;
 * QEMU ends a program that executes an instruction its processor lacks.
 */
const runs = [
  { cpu: "max", test: "attention_test" },
  { cpu: "max", test: "coded_test" },
  { cpu: "max", test: "kernels_test" },
  { cpu: "max", test: "golden_test", only: "tiny" },
  { cpu: "max", test: "cpu_test", only: "agree with the reference" },
  { cpu: "max", test: "cpu_test", only: "accept cuts rows" },
  { cpu: "max", test: "io_test" },
  { cpu: "cortex-a76", test: "coded_test" },
  { cpu: "cortex-a76", test: "kernels_test" },
  { cpu: "cortex-a53", test: "coded_test" },
  { cpu: "cortex-a53", test: "kernels_test" },
  { cpu: "cortex-a53", test: "golden_test", only: "tiny" },
];

const targets = [...new Set(runs.map(({ test }) => test))];

function buildArm() {
  const outputs = targets.map((test) => `build/native-arm/${test}`);
  return whenStale({ name: "native-arm", inputs: nativeInputs, outputs }, async () => {
    await configure(folder, {
      CMAKE_TOOLCHAIN_FILE: at("native", "cmake", "aarch64.cmake"),
      RINGSIDE_ADDON: "OFF",
    });
    await compile(folder, targets);
  });
}

/** Runs one test program; the lines that say what went wrong, if anything did. */
async function emulate({ cpu, test, only }) {
  const name = [test, only, `on ${cpu}`].filter((part) => part !== undefined).join(" ");
  const args = [
    "-cpu",
    cpu,
    "-L",
    "/usr/aarch64-linux-gnu",
    `${folder}/${test}`,
    ...(only === undefined ? [] : [only]),
  ];
  const { output, failure } = await run(programFor("armEmulator"), args, { limitMs: testLimitMs }).then(
    (output) => ({ output, failure: null }),
    (error) => ({ output: error.output ?? "", failure: error }),
  );
  const [, passed = "0", failed = "0"] = /^(\d+) passed, (\d+) failed$/m.exec(output) ?? [];
  const counts = { passed: Number(passed), failed: Number(failed) };
  if (failure === null && counts.passed > 0) return counts;
  const lines = output.split("\n").filter((line) => !line.startsWith("ok   "));
  const reason = failure?.reason ?? failure?.message ?? "no test ran";
  return { ...counts, failed: Math.max(1, counts.failed), report: [`${name}: ${reason}`, ...lines].join("\n") };
}

/** As many at a time as there are cores. */
async function emulateAll(jobs) {
  const results = [];
  const waiting = [...runs];
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) results.push(await emulate(next));
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  return results;
}

/** Builds and runs the tests. Where that cannot be, says so and counts nothing. */
export async function armTests(jobs) {
  const nothing = { passed: 0, failed: 0 };
  if (process.arch === "arm64") return { ...nothing, note: "not emulated, the native tests ran on this ARM machine" };
  const missing = () => programs.filter((need) => programFor(need) === null);
  if (missing().length > 0 && canInstall()) await ensurePrograms(programs);
  if (missing().length > 0) return { ...nothing, note: "not run, there is no ARM compiler or no QEMU" };
  await buildArm();
  const results = await emulateAll(jobs);
  const total = (field) => results.reduce((sum, result) => sum + result[field], 0);
  const reports = results.flatMap(({ report }) => (report === undefined ? [] : [report]));
  const counts = { passed: total("passed"), failed: total("failed") };
  return reports.length === 0 ? counts : { ...counts, report: reports.join("\n") };
}
