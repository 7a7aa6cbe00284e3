// Owns: everything between a fresh clone and a built checkout. Plain Node without dependencies, because it runs before
// `npm ci`; each part is skipped when it is up to date. Must never touch anything outside the checkout but system packages.
import fs from "node:fs";
import { buildBundles } from "./bundle.mjs";
import { publishCudaLibrary, setUpArchitectures } from "./native-cuda.mjs";
import { buildNative } from "./native.mjs";
import { at } from "./paths.mjs";
import { Explained, isMain, main, run, say, step } from "./process.mjs";
import { buildNeeds, ensurePrograms, programFor } from "./system-packages.mjs";

const nodeFloor = 20;

function checkNode() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < nodeFloor) {
    throw new Explained(`Ringside needs Node ${nodeFloor} or newer; this is Node ${process.versions.node}.`);
  }
}

/** npm leaves a lock file of what it installed; comparing it with ours needs no stamp and survives `npm install`. */
function packagesAreInstalled() {
  const installedFile = at("node_modules", ".package-lock.json");
  if (!fs.existsSync(installedFile)) return false;
  const read = (file) => JSON.parse(fs.readFileSync(file, "utf8")).packages;
  const installed = read(installedFile);
  return Object.entries(read(at("package-lock.json"))).every(
    ([name, wanted]) =>
      name === "" || (installed[name] ? installed[name].version === wanted.version : wanted.optional === true),
  );
}

async function installPackages() {
  if (packagesAreInstalled()) return "up to date";
  // Install scripts of packages stay off: none of ours needs one, and a script is how a stolen package spreads.
  await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
}

/** One set-up at a time for a checkout: a second one waits for the first and then finds everything up to date. */
async function withLock(work) {
  const lockFile = at("build", "setup.lock");
  fs.mkdirSync(at("build"), { recursive: true });
  for (;;) {
    try {
      fs.writeFileSync(lockFile, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (!ownerIsAlive(lockFile)) fs.rmSync(lockFile, { force: true });
    else await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const release = () => fs.rmSync(lockFile, { force: true });
  process.once("exit", release);
  try {
    return await work();
  } finally {
    release();
    process.off("exit", release);
  }
}

function ownerIsAlive(lockFile) {
  try {
    process.kill(Number(fs.readFileSync(lockFile, "utf8")), 0);
    return true;
  } catch (error) {
    // EPERM: another user's process. ENOENT: released this moment; only a lock whose owner is gone may be removed.
    return error.code !== "ESRCH";
  }
}

/** The GPU backend, where there is a compiler for it and a card. A machine where it cannot be built has a processor too. */
async function setUpGpu() {
  const architectures = await setUpArchitectures();
  if (architectures.length === 0) return publishCudaLibrary([]);
  await step(`GPU backend for ${architectures.join(", ")}`, () => publishCudaLibrary(architectures)).catch((error) => {
    if (!(error instanceof Explained)) throw error;
    say(`${error.message}\nModels run on the processor until this is put right.`);
    return publishCudaLibrary([]);
  });
}

/** Makes dist/ ready: bundles, addon, native tool. With `tests` the native tests are compiled as well. */
export async function setUp({ tests = false } = {}) {
  checkNode();
  await withLock(async () => {
    if (buildNeeds.some((need) => programFor(need) === null)) {
      await step("system packages", () => ensurePrograms(buildNeeds));
    }
    await step("npm packages", installPackages);
    await step(tests ? "native engine and its tests" : "native engine", () => buildNative({ tests }));
    await setUpGpu();
    await step("bundles", buildBundles);
  });
}

if (isMain(import.meta)) void main(() => setUp());
