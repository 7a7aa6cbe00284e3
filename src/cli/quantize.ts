// Owns: `ringside quantize`: its help; the work is the native tool's.
import { parseCommand } from "./arguments";
import { runNativeTool } from "./nativeTool";

const help = `ringside quantize IN OUT --bits 4|8 [options]

Writes the checkpoint folder IN to the folder OUT with quantised matrices, shard by shard.

  --bits 4|8           bits of a weight
  --head-bits 4|8      bits of the output layer and the embedding; 8 unless given
  --group N            columns that share a scale: 32, 64 or 128
  --threads N          as many as the processor runs at once unless given
  --shard-mb N         largest size of an output file
  --json               sizes and errors as one JSON value`;

export async function quantizeCommand(arguments_: readonly string[]): Promise<number> {
  parseCommand(arguments_, {
    help,
    options: {
      bits: { type: "string" },
      "head-bits": { type: "string" },
      group: { type: "string" },
      threads: { type: "string" },
      "shard-mb": { type: "string" },
      json: { type: "boolean" },
    },
    positionals: [2, 2],
  });
  return (await runNativeTool(["quantize", ...arguments_])).exitCode;
}
