// A program that starts an engine, tells its process's id once it is where it should be, and waits to be killed.
// Arguments: host script, addon, model folder, "idle" or "reading".
import { createEngineClient } from "../../src/engine/client";
import { loadRequest, promptOf } from "./prompts";

const [hostScript = "", addonPath = "", folder = "", where = ""] = process.argv.slice(2);

async function main(): Promise<void> {
  let pid = "";
  const engine = createEngineClient({
    hostScript,
    addonPath,
    log: (line) => {
      pid = /^engine process (\d+) started$/.exec(line)?.[1] ?? pid;
    },
  });
  await engine.load(loadRequest(folder));
  if (where === "reading") {
    await engine.sync(promptOf(30_000, "q"), {
      onProgress: ({ position }) => {
        if (position > 0) process.stdout.write(`${pid}\n`);
      },
    });
  } else process.stdout.write(`${pid}\n`);
  setInterval(() => undefined, 1_000);
}

void main();
