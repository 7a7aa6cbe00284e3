// Owns: the build of the CUDA backend: which compiler, which driver and which cards this machine has, the library, and the
// tests' programs. Must never be needed: without nvcc everything else builds and runs as it does with it.
import fs from "node:fs";
import path from "node:path";
import { whenStale } from "./freshness.mjs";
import { compile, configure, nativeInputs, publish } from "./native.mjs";
import { at, cudaLibraryFile } from "./paths.mjs";
import { Explained, findProgram, run } from "./process.mjs";

/** CUDA 13: what native/cmake/cuda.cmake asks for too. */
const leastMajor = 13;
const libraryName = path.basename(cudaLibraryFile);
const toolkitPrograms = "/usr/local/cuda/bin";
const inputs = [...nativeInputs, "test/cuda", "scripts/native-cuda.mjs"];

/** What `npm test` compiles for: the card whose kernels use the most of the language, Hopper. */
export const testedArchitectures = ["90a-real"];

/** A program of the CUDA toolkit, on PATH or where the toolkit puts itself; null if there is none. */
function toolkitProgram(name) {
  const file = path.join(toolkitPrograms, name);
  return findProgram(name) ?? (fs.existsSync(file) ? file : null);
}

/** The full path of an nvcc that can compile the backend, or null. */
export async function findNvcc() {
  if (process.platform !== "linux") return null;
  const nvcc = toolkitProgram("nvcc");
  const text = nvcc === null ? "" : await run(nvcc, ["--version"]).catch(() => "");
  return Number(/release (\d+)/.exec(text)?.[1] ?? 0) >= leastMajor ? nvcc : null;
}

/** Whether the loader would find the library that every NVIDIA driver brings along. */
async function hasDriver() {
  const name = "libcuda.so.1";
  const named = (process.env.LD_LIBRARY_PATH ?? "").split(path.delimiter).filter((folder) => folder !== "");
  if ([...named, "/usr/lib/wsl/lib"].some((folder) => fs.existsSync(path.join(folder, name)))) return true;
  const ldconfig = findProgram("ldconfig") ?? "/sbin/ldconfig";
  return (await run(ldconfig, ["-p"]).catch(() => "")).includes(`${name} `);
}

/**
 * "9.0" → "90a-real": machine code for this card alone; Hopper's own instructions are only in the architecture with an a.
 * Undefined for cards that are too old for the backend.
 */
export function architectureOf(capability) {
  const [, major = "0", minor = ""] = /^(\d+)\.(\d)$/.exec(capability.trim()) ?? [];
  if (Number(major) < 8) return undefined;
  return major === "9" ? `${major}${minor}a-real` : `${major}${minor}-real`;
}

/** The architectures of this machine's cards, without duplicates; empty where there is no driver or no card. */
export async function ownArchitectures() {
  if (!(await hasDriver())) return [];
  const query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
  const capabilities = (await run("nvidia-smi", query).catch(() => "")).split("\n").filter((line) => line !== "");
  return [...new Set(capabilities.map(architectureOf).filter((name) => name !== undefined))].sort();
}

/** One folder for each choice of architectures, so that they do not undo each other's work. */
const folderFor = (architectures) => `build/cuda/${architectures.length > 0 ? architectures.join("+") : "shipped"}`;

async function build(architectures, targets, hostBuild = "") {
  const nvcc = await findNvcc();
  if (nvcc === null)
    throw new Explained(`The GPU backend needs nvcc ${leastMajor} or newer, on PATH or in ${toolkitPrograms}.`);
  const folder = at(folderFor(architectures));
  await configure(folder, {
    CMAKE_CUDA_COMPILER: nvcc,
    RINGSIDE_ADDON: "OFF",
    RINGSIDE_CUDA: "ON",
    RINGSIDE_CUDA_ARCHITECTURES: architectures.join(";"),
    RINGSIDE_HOST_BUILD: hostBuild,
  });
  await compile(folder, targets);
}

/** The library, compiled for these architectures; none: for all that are shipped. Returns its path within the checkout. */
export async function buildCudaLibrary(architectures) {
  const library = `${folderFor(architectures)}/${libraryName}`;
  const name = `cuda-library-${path.basename(folderFor(architectures))}`;
  await whenStale({ name, inputs, outputs: [library] }, () => build(architectures, ["ringside_cuda"]));
  return library;
}

/**
 * The library, the tests' programs and others by their names. Returns the folder within the checkout where they lie. `hostBuild`: a
 * folder of the native build that is up to date; what it has for the processor is not compiled a second time.
 */
export async function buildCudaTests(architectures, tests, { others = [], hostBuild } = {}) {
  const folder = folderFor(architectures);
  const targets = ["ringside_cuda", ...tests.map((test) => `cuda_${test}`), ...others];
  const outputs = [libraryName, ...targets.slice(1)].map((file) => `${folder}/${file}`);
  await whenStale({ name: `cuda-tests-${path.basename(folder)}`, inputs, outputs }, () =>
    build(architectures, targets, hostBuild),
  );
  return folder;
}

/** The names of the test programs, of which test/cuda/run.sh has the list. */
export async function cudaTests() {
  return (await run("sh", [at("test", "cuda", "run.sh"), "--list"])).trim().split("\n");
}

/** Whether set-up makes a library here, and for what: there has to be a compiler and something that runs its output. */
export async function setUpArchitectures() {
  return (await findNvcc()) === null ? [] : ownArchitectures();
}

/**
 * Puts the library for this machine's cards beside the addon, which is where the engine looks for it. Without architectures
 * none is left there: an old one would no longer fit the engine.
 */
export async function publishCudaLibrary(architectures) {
  if (architectures.length === 0) {
    fs.rmSync(cudaLibraryFile, { force: true });
    return;
  }
  const library = at(await buildCudaLibrary(architectures));
  if (fs.existsSync(cudaLibraryFile) && fs.readFileSync(cudaLibraryFile).equals(fs.readFileSync(library)))
    return "up to date";
  publish(library, cudaLibraryFile);
}
