// Owns: the command line as a program, for tests: bundled from the sources, with the built addon and a cache folder of its own.
import { spawn } from "node:child_process";
import type { ChildProcessByStdio } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import * as path from "node:path";
import type { Readable } from "node:stream";
import { addonPath, bundle, nanoFolder, root, scratchFolder } from "../engine/engineUnderTest";

const installation = scratchFolder("asking");
mkdirSync(path.join(installation, "dist", "native"), { recursive: true });
mkdirSync(path.join(installation, "media"));
bundle("src/cli/main.ts", path.join(installation, "dist", "cli.js"));
bundle("src/engine/host.ts", path.join(installation, "dist", "engineHost.js"));
bundle("src/worker/thread.ts", path.join(installation, "dist", "contextWorker.js"));
symlinkSync(path.join(root, "dist", "grammars"), path.join(installation, "dist", "grammars"));
symlinkSync(addonPath, path.join(installation, "dist", "native", "ringside.node"));
symlinkSync(nanoFolder, path.join(installation, "media", "nano"));

export interface Ended {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
}

/** What is kept between commands is these tests' own. */
const cache = path.join(installation, "cache");
export const snapshotFolder = path.join(cache, "ringside", "snapshots");

export function startRingside(...arguments_: readonly string[]): ChildProcessByStdio<null, Readable, Readable> {
  const program = path.join(installation, "dist", "cli.js");
  return spawn(process.execPath, [program, ...arguments_], {
    env: { ...process.env, XDG_CACHE_HOME: cache },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

export async function ringside(...arguments_: readonly string[]): Promise<Ended> {
  const child = startRingside(...arguments_);
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
  const exitCode = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { exitCode, out, err };
}
