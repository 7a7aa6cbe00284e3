// Owns: the programs of the operating system that building and testing need. Installs them with apt-get where that is
// possible without asking (root on Debian), else names them in one sentence. Must never change anything else of the system.
import fs from "node:fs";
import { Explained, findProgram, run } from "./process.mjs";

const needs = {
  compiler: { anyOf: ["c++", "g++", "clang++"], debian: ["g++"] },
  cmake: { anyOf: ["cmake"], debian: ["cmake"] },
  make: { anyOf: ["ninja", "make"], debian: ["ninja-build"] },
  python: { anyOf: ["python3"], debian: ["python3"] },
  gnuMake: { anyOf: ["make"], debian: ["make"] },
  // libFuzzer lies in the runtime library of clang, a package of its own (14: the version of Debian 12).
  fuzzer: { anyOf: ["clang++"], debian: ["clang", "libclang-rt-14-dev"] },
  clangFormat: { anyOf: ["clang-format"], debian: ["clang-format"] },
  armCompiler: { anyOf: ["aarch64-linux-gnu-g++"], debian: ["g++-aarch64-linux-gnu"] },
  armEmulator: { anyOf: ["qemu-aarch64-static", "qemu-aarch64"], debian: ["qemu-user-static"] },
  chromium: { anyOf: ["chromium", "chromium-browser", "google-chrome"], debian: ["chromium", "fonts-liberation"] },
};

export const buildNeeds = ["compiler", "cmake", "make", "python"];

export const programFor = (need) => needs[need].anyOf.map(findProgram).find((file) => file !== null) ?? null;

export const canInstall = () =>
  process.platform === "linux" && process.getuid() === 0 && fs.existsSync("/usr/bin/apt-get");

/** Makes sure that each need has a program. Returns a note for the step's line. */
export async function ensurePrograms(wanted) {
  const missing = wanted.filter((need) => programFor(need) === null).flatMap((need) => needs[need].debian);
  if (missing.length === 0) return "present";
  if (!canInstall()) {
    const how =
      process.platform === "darwin"
        ? "xcode-select --install, brew install cmake"
        : `sudo apt-get install ${missing.join(" ")}`;
    throw new Explained(`Please install these packages first: ${missing.join(", ")} (${how}).`);
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  // Tests of several files may find the same program missing at once: one after the other, or apt-get gives up.
  const aptGet = (...options) => run("flock", ["/var/lib/apt", "apt-get", ...options], { env });
  await aptGet("update");
  await aptGet("-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", ...missing);
  return `installed ${missing.join(", ")}`;
}
