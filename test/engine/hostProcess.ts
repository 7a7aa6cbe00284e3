// Owns: looking at engine host processes from outside, for the tests that end them.
import { readFileSync } from "node:fs";
import type { EnginePort } from "../../src/protocol/engine";
import { newEngine } from "./engineUnderTest";

/** An engine together with the id of its newest host process. */
export function watchedEngine(): {
  readonly engine: EnginePort;
  readonly pid: () => number;
  readonly starts: () => number;
} {
  const pids: number[] = [];
  const engine = newEngine({
    log: (line) => {
      const started = /^engine process (\d+) started$/.exec(line);
      if (started !== null) pids.push(Number(started[1]));
    },
  });
  return { engine, pid: () => pids.at(-1) ?? 0, starts: () => pids.length };
}

/** Kills the host while nothing runs, and waits until its client knows. */
export async function killIdle(engine: EnginePort, pid: number, signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
  const known = new Promise<void>((resolve) => {
    const stop = engine.onStatus(({ state }) => {
      if (state !== "failed") return;
      stop();
      resolve();
    });
  });
  process.kill(pid, signal);
  await known;
}

export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    // An ended process that nobody has waited for still has its number; "Z" says that it has ended.
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${String(pid)}/stat`, "utf8"));
  } catch {
    return process.platform !== "linux";
  }
}

/** Milliseconds until the process has ended; Infinity when it has not within `limitMs`. */
export async function endsWithin(pid: number, limitMs: number): Promise<number> {
  const startedMs = performance.now();
  while (performance.now() - startedMs < limitMs) {
    if (!isRunning(pid)) return performance.now() - startedMs;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return Infinity;
}
