// Owns: the native build: configuring, compiling and copying what the bundles load. Must never download anything.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { at } from "./paths.mjs";
import { whenStale } from "./freshness.mjs";
import { findProgram, run } from "./process.mjs";

const jobs = String(Math.max(1, os.availableParallelism()));

/** What the native build is made from; the tests' sources too, because CMake configures them together. */
export const nativeInputs = [
  "native",
  "test/native",
  "package-lock.json",
  "scripts/native-link.mjs",
  "scripts/elf.mjs",
];

export async function configure(folder, options = {}) {
  const defines = {
    // The headers of the stable Node-API, pinned by the lock file: the same on every machine and for every Node.
    NODE_INCLUDE_DIR: at("node_modules", "node-api-headers", "include"),
    NODE_ADDON_API_DIR: at("node_modules", "node-addon-api"),
    ...options,
  };
  const isConfigured = fs.existsSync(path.join(folder, "CMakeCache.txt"));
  const generator = isConfigured ? [] : ["-G", findProgram("ninja") ? "Ninja" : "Unix Makefiles"];
  const args = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`);
  await run("cmake", ["-S", at("native"), "-B", folder, ...generator, ...args]);
}

export async function compile(folder, targets = []) {
  const targetArgs = targets.length > 0 ? ["--target", ...targets] : [];
  await run("cmake", ["--build", folder, "-j", jobs, ...targetArgs]);
}

/** Copies by rename: a running engine host keeps the old file mapped. */
export function publish(from, to) {
  fs.mkdirSync(path.dirname(to), { recursive: true });
  fs.copyFileSync(from, `${to}.new`);
  fs.renameSync(`${to}.new`, to);
}

/** Builds the addon, which goes to dist/native/, and the native tool; with `tests` the native tests as well. */
export function buildNative({ tests = false } = {}) {
  const folder = at("build", "native");
  return whenStale(
    {
      name: tests ? "native-tests" : "native",
      inputs: nativeInputs,
      outputs: ["dist/native/ringside.node", "build/native/ringside-tool"],
    },
    async () => {
      await configure(folder);
      await compile(folder, tests ? [] : ["ringside_addon", "ringside-tool"]);
      publish(path.join(folder, "ringside.node"), at("dist", "native", "ringside.node"));
    },
  );
}

/** The native tests under the address and undefined-behaviour sanitizers, in a folder of their own. */
export function buildSanitized() {
  const folder = at("build", "native-sanitize");
  return whenStale(
    { name: "native-sanitize", inputs: nativeInputs, outputs: ["build/native-sanitize/CMakeCache.txt"] },
    async () => {
      await configure(folder, { RINGSIDE_SANITIZE: "ON", RINGSIDE_ADDON: "OFF" });
      await compile(folder);
    },
  );
}
