// Owns: `npm run test:gpu`: the tests of the GPU backend compiled and run here, or made ready for a machine that has a card
// and no Node. Which programs there are and how they run is said in test/cuda/run.sh alone.
//
//   npm run test:gpu -- [--bench] [--no-sanitizer] [--architectures LIST]
//   npm run test:gpu -- --rows [--architectures LIST]
//   npm run test:gpu -- --build-only --out DIR [--architectures LIST]
//
// LIST: such as 90a,80, or "all" for those that are shipped; without it, those of this machine's cards.
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { buildCudaTests, cudaTests, findNvcc, ownArchitectures } from "./native-cuda.mjs";
import { at, cudaLibraryFile } from "./paths.mjs";
import { Explained, isMain, main, run, say, step } from "./process.mjs";
import { ensurePrograms } from "./system-packages.mjs";

const options = {
  architectures: { type: "string" },
  bench: { type: "boolean", default: false },
  "no-sanitizer": { type: "boolean", default: false },
  rows: { type: "boolean", default: false },
  "build-only": { type: "boolean", default: false },
  out: { type: "string" },
};

function readOptions() {
  try {
    const { values } = parseArgs({ options });
    if (values["build-only"] !== (values.out !== undefined)) throw new Error("--build-only and --out DIR go together.");
    return values;
  } catch (error) {
    throw new Explained(error.message);
  }
}

/** "90a,80" → ["90a-real", "80-real"]; "all" → [], which stands for all that are shipped. */
export function parseArchitectures(list) {
  if (list === "all") return [];
  const names = list.split(",");
  const wrong = names.find((name) => !/^\d{2,3}[af]?$/.test(name));
  if (wrong !== undefined) throw new Explained(`"${wrong}" is no architecture; write them as 90a,80 or all.`);
  return names.map((name) => `${name}-real`);
}

async function chooseArchitectures(list) {
  if (list !== undefined) return parseArchitectures(list);
  const own = await ownArchitectures();
  if (own.length > 0) return own;
  throw new Explained(
    "This machine has no NVIDIA GPU with a driver. With --build-only --out DIR --architectures 90a (a Hopper card) the tests are made ready for a machine that has one.",
  );
}

/** Programs, their script and what they read, in one folder that can be copied as it is. */
function collect(folder, tests, out) {
  fs.mkdirSync(path.join(out, "cuda"), { recursive: true });
  const programs = tests.map((test) => `cuda_${test}`);
  // The bench finds the library beside itself.
  for (const name of [...programs, "ringside-tool", path.basename(cudaLibraryFile)])
    fs.copyFileSync(at(folder, name), path.join(out, "cuda", name));
  fs.copyFileSync(at("test", "cuda", "run.sh"), path.join(out, "run.sh"));
  fs.cpSync(at("media", "nano"), path.join(out, "nano"), { recursive: true });
  fs.cpSync(at("test", "golden", "nano"), path.join(out, "golden", "nano"), { recursive: true });
}

async function testGpu() {
  const values = readOptions();
  if ((await findNvcc()) === null)
    throw new Explained("The GPU tests need nvcc 13 or newer, on PATH or in /usr/local/cuda.");
  const architectures = await chooseArchitectures(values.architectures);
  const tests = await cudaTests();
  await ensurePrograms(["compiler", "cmake", "make"]);
  const named = architectures.length === 0 ? "all architectures" : architectures.join(", ");
  let folder = "";
  await step(`GPU tests for ${named}`, async () => {
    folder = await buildCudaTests(architectures, tests, { others: ["ringside-tool"] });
  });
  if (values.out !== undefined) {
    collect(folder, tests, path.resolve(values.out));
    say(`On the machine with the GPU: sh ${path.join(values.out, "run.sh")}`);
    return;
  }
  const passedOn = ["bench", "no-sanitizer", "rows"].filter((name) => values[name]).map((name) => `--${name}`);
  const env = {
    NANO_DIR: at("media", "nano"),
    GOLDEN_DIR: at("test", "golden"),
    ...process.env,
    PROGRAMS: at(folder),
    ROWS: at("build", "bench"),
  };
  await run("sh", [at("test", "cuda", "run.sh"), ...passedOn], { env, isShown: true }).catch(() => {
    throw new Explained("Not every GPU test passed.");
  });
}

if (isMain(import.meta)) void main(testGpu);
