// Owns: the command line as a program, for tests: bundled from the sources, with the built addon and a cache folder of its own.
import { spawn } from "node:child_process";
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import * as path from "node:path";
import { addonPath, bundle, nanoFolder, root, scratchFolder } from "../engine/engineUnderTest";

/** Laid out as the real one, with bundles of the sources. */
export const installation = scratchFolder("installation");
mkdirSync(path.join(installation, "dist", "native"), { recursive: true });
for (const name of ["media", "build"]) mkdirSync(path.join(installation, name));
bundle("src/cli/main.ts", path.join(installation, "dist", "cli.js"));
bundle("src/engine/host.ts", path.join(installation, "dist", "engineHost.js"));
bundle("src/worker/thread.ts", path.join(installation, "dist", "contextWorker.js"));
symlinkSync(path.join(root, "dist", "grammars"), path.join(installation, "dist", "grammars"));
symlinkSync(addonPath, path.join(installation, "dist", "native", "ringside.node"));
symlinkSync(nanoFolder, path.join(installation, "media", "nano"));
symlinkSync(path.join(root, "build", "native"), path.join(installation, "build", "native"));

export interface Ended {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
}

/** What is kept between commands is these tests' own. */
const cache = path.join(installation, "cache");
export const snapshotFolder = path.join(cache, "ringside", "snapshots");

export function startRingside(...arguments_: readonly string[]): ChildProcessWithoutNullStreams {
  const program = path.join(installation, "dist", "cli.js");
  const child = spawn(process.execPath, [program, ...arguments_], { env: { ...process.env, XDG_CACHE_HOME: cache } });
  // A command that does not read what it is given may be over first.
  child.stdin.on("error", () => undefined);
  return child;
}

export async function ringside(...arguments_: readonly string[]): Promise<Ended> {
  return ringsideGiven("", ...arguments_);
}

/** `input`: its standard input. */
export async function ringsideGiven(input: string, ...arguments_: readonly string[]): Promise<Ended> {
  const child = startRingside(...arguments_);
  child.stdin.end(input);
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
  const exitCode = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { exitCode, out, err };
}
