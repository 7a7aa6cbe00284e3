// Owns: `ringside quantize`: its help; the work is the native tool's.
import { parseCommand } from "./arguments";
import { runNativeTool } from "./nativeTool";

const help = `ringside quantize IN OUT --bits 8 [options]

Writes the checkpoint folder IN to the folder OUT with quantised matrices, shard by shard.

  --bits 8             bits of a weight
  --group N            columns that share a scale: 32, 64 or 128
  --shard-mb N         largest size of an output file
  --json               sizes and errors as one JSON value`;

export async function quantizeCommand(arguments_: readonly string[]): Promise<number> {
  parseCommand(arguments_, {
    help,
    options: {
      bits: { type: "string" },
      group: { type: "string" },
      "shard-mb": { type: "string" },
      json: { type: "boolean" },
    },
    positionals: [2, 2],
  });
  return (await runNativeTool(["quantize", ...arguments_])).exitCode;
}
