// Owns: one engine for the time of one command, ended whatever happens.
import { createEngineClient } from "../engine/client";
import type { EnginePort } from "../protocol/engine";
import { places } from "./places";

const snapshotLimitBytes = 4 * 2 ** 30;

/** `keepsSnapshots`: what is read of a repository is kept for the next command. */
export async function withEngine<T>(
  work: (engine: EnginePort) => Promise<T>,
  { keepsSnapshots = false }: { readonly keepsSnapshots?: boolean } = {},
): Promise<T> {
  const engine = createEngineClient({
    hostScript: places.engineHost,
    addonPath: places.addon,
    ...(keepsSnapshots ? { snapshots: { folder: places.snapshots, limitBytes: snapshotLimitBytes } } : {}),
    log: (line) => {
      if (process.env["RINGSIDE_LOG"] !== undefined) process.stderr.write(`${line}\n`);
    },
  });
  try {
    return await work(engine);
  } finally {
    await engine.stop();
  }
}
