// Owns: the one engine process of this client: starting it, greeting it, starting it again within a budget, ending it.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { engineProtocolVersion } from "../protocol/engine";
import { failure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import { Connection } from "./connection";
import { engineStreamDescriptor } from "./wire";

export const maxRestarts = 3;
export const restartWindowMs = 5 * 60 * 1_000;
const helloMs = 10_000;
const stopGraceMs = 1_000;
const maxLogLineCharacters = 2_000;

export interface EngineProcessOptions {
  /** The bundled host.ts. */
  readonly hostScript: string;
  readonly addonPath: string;
  /** Default: this process's own executable, run as plain Node. */
  readonly nodePath?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly log?: (line: string) => void;
  /** Where states are kept beyond the process's life, and how much of them; without it, nowhere. */
  readonly snapshots?: { readonly folder: string; readonly limitBytes: number } | undefined;
}

/** How often a process that ended badly may be started again. */
export class RestartBudget {
  #restartsAtMs: number[] = [];

  /** Counts one restart, unless there were too many of late. */
  take(nowMs: number): boolean {
    this.#restartsAtMs = this.#restartsAtMs.filter((atMs) => nowMs - atMs < restartWindowMs);
    if (this.#restartsAtMs.length >= maxRestarts) return false;
    this.#restartsAtMs.push(nowMs);
    return true;
  }

  reset(): void {
    this.#restartsAtMs = [];
  }
}

export class Supervisor {
  readonly #options: EngineProcessOptions;
  readonly #onDeath: (error: RingsideError) => void;
  readonly #budget = new RestartBudget();
  #connection: Connection | null = null;
  #starting: Promise<Connection> | null = null;
  #endedBadly = false;

  constructor(options: EngineProcessOptions, onDeath: (error: RingsideError) => void) {
    this.#options = options;
    this.#onDeath = onDeath;
  }

  /** The running process, started if there is none. Throws "engine-missing", "engine-died" or "engine-restart-limit". */
  async connect(): Promise<Connection> {
    if (this.#starting === null && this.#connection?.alive === true) return this.#connection;
    this.#starting ??= this.#start().finally(() => {
      this.#starting = null;
    });
    return this.#starting;
  }

  /** The user asked for a new beginning: earlier deaths are forgotten. */
  forgive(): void {
    this.#budget.reset();
    this.#endedBadly = false;
  }

  async stop(): Promise<void> {
    // A start under way is let finish, so that no process is left behind that nobody knows.
    await this.#starting?.catch(() => undefined);
    const connection = this.#connection;
    this.#connection = null;
    await connection?.close(stopGraceMs);
  }

  async #start(): Promise<Connection> {
    const { hostScript } = this.#options;
    if (!existsSync(hostScript)) throw failure("engine-missing", hostScript, "", "no such file");
    if (this.#endedBadly && !this.#budget.take(performance.now())) {
      const minutes = String(restartWindowMs / 60_000);
      throw failure("engine-restart-limit", "", `${String(maxRestarts)} restarts in ${minutes} minutes`);
    }
    const connection = await this.#spawn();
    this.#connection = connection;
    await this.#greet(connection);
    return connection;
  }

  #ended(connection: Connection, error: RingsideError | null): void {
    if (this.#connection === connection) this.#connection = null;
    if (error === null) return;
    this.#endedBadly = true;
    this.#log(`engine process ended: ${[error.kind, error.actual].join(" ")}`);
    this.#onDeath(error);
  }

  async #spawn(): Promise<Connection> {
    const { hostScript, addonPath, nodePath = process.execPath, env = process.env, snapshots } = this.#options;
    const kept = snapshots === undefined ? [] : [snapshots.folder, String(snapshots.limitBytes)];
    const child = spawn(nodePath, [hostScript, addonPath, ...kept], {
      // In VS Code's desktop the executable is Electron. Options meant for this process (a debugger's, say) are not inherited.
      env: { ...env, ELECTRON_RUN_AS_NODE: "1", NODE_OPTIONS: undefined },
      stdio: ["ignore", "ignore", "pipe", "pipe"],
      windowsHide: true,
    });
    if (child.stderr !== null) {
      createInterface({ input: child.stderr }).on("line", (line) => {
        this.#log(`engine: ${line.slice(0, maxLogLineCharacters)}`);
      });
    }
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (cause) => {
        reject(failure("engine-missing", nodePath, "", cause.message));
      });
    });
    const stream = child.stdio[engineStreamDescriptor];
    if (!(stream instanceof Socket)) throw failure("internal", "engine process", "a stream", "none");
    this.#log(`engine process ${String(child.pid)} started`);
    return new Connection(child, stream, (ended, error) => {
      this.#ended(ended, error);
    });
  }

  async #greet(connection: Connection): Promise<void> {
    const timer = setTimeout(() => {
      connection.kill(failure("engine-died", "", "", `no answer within ${String(helloMs / 1_000)} s`).error);
    }, helloMs);
    try {
      const { version } = await connection.request({ type: "hello", version: engineProtocolVersion }).result;
      if (version !== engineProtocolVersion) {
        const error = failure("frame-invalid", "hello", String(engineProtocolVersion), String(version));
        connection.kill(error.error);
        throw error;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #log(line: string): void {
    this.#options.log?.(line);
  }
}
