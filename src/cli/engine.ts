// Owns: one engine for the time of one command, ended whatever happens.
import { createEngineClient } from "../engine/client";
import type { EnginePort } from "../protocol/engine";
import { places } from "./places";

export async function withEngine<T>(work: (engine: EnginePort) => Promise<T>): Promise<T> {
  const engine = createEngineClient({
    hostScript: places.engineHost,
    addonPath: places.addon,
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
