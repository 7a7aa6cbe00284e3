// Owns: running other programs and reporting steps with their time. Must never decide what is run.
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { root } from "./paths.mjs";

/** A failure that one sentence explains; its stack is of no use to the reader. */
export class Explained extends Error {}

/**
 * Runs a program to its end and returns what it printed. Throws Explained, with the last lines of that, when it ends with
 * another code than 0 or runs longer than `limitMs`. With `isShown` its output goes to ours and is not returned.
 */
export async function run(command, args, { cwd = root, env = process.env, limitMs, isShown = false } = {}) {
  const child = spawn(command, args, {
    cwd,
    env,
    // What has a limit gets a process group of its own: the programs that it started must end with it.
    detached: limitMs !== undefined,
    stdio: isShown ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"],
  });
  const killGroup = () => process.kill(-child.pid, "SIGKILL");
  const timer = limitMs === undefined ? undefined : setTimeout(killGroup, limitMs);
  if (limitMs !== undefined) process.once("exit", killGroup);
  const chunks = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => chunks.push(chunk));
  const outcome = await new Promise((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => resolve(code === 0 ? null : signal ? `signal ${signal}` : `exit code ${code}`));
  });
  clearTimeout(timer);
  process.off("exit", killGroup);
  const output = Buffer.concat(chunks).toString();
  if (outcome === null) return output;
  const tail = output.trimEnd().split("\n").slice(-60).join("\n");
  const failure = new Explained(`${[path.basename(command), ...args].join(" ")}: ${outcome}\n${tail}`);
  failure.output = output;
  failure.reason = `${path.basename(command)}: ${outcome}`;
  throw failure;
}

/** The full path of a program on PATH, or null. */
export function findProgram(name) {
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
    const file = path.join(folder, name);
    try {
      fs.accessSync(file, fs.constants.X_OK);
      if (fs.statSync(file).isFile()) return file;
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

export const seconds = (startMs) => `${((performance.now() - startMs) / 1000).toFixed(1)} s`;

export function say(line) {
  process.stderr.write(`${line}\n`);
}

/** Runs `work` as one named step. A string it returns stands in the line, such as "up to date". */
export async function step(title, work) {
  const start = performance.now();
  if (process.stderr.isTTY) process.stderr.write(`… ${title}\r`);
  try {
    const note = await work();
    say(`✓ ${title}${typeof note === "string" ? `: ${note}` : ""} (${seconds(start)})`);
    return note;
  } catch (error) {
    say(`✗ ${title} (${seconds(start)})`);
    throw error;
  }
}

/** Runs a script's main function; one sentence and exit code 1 for a failure that has one. */
export async function main(work) {
  try {
    await work();
  } catch (error) {
    say(error instanceof Explained ? error.message : error.stack);
    process.exitCode = 1;
  }
}

/** Whether a module is the program that was started. */
export const isMain = (meta) =>
  process.argv[1] !== undefined && fs.realpathSync(process.argv[1]) === fileURLToPath(meta.url);
