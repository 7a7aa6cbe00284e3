// Owns: `ringside roofline`: its help; the work is the native tool's.
import { parseCommand } from "./arguments";
import { runNativeTool } from "./nativeTool";

const help = `ringside roofline [--threads N] [--json]

Measures this machine's read bandwidth and multiply peaks.

  --threads N          default: the physical cores
  --json               one JSON value on standard output and nothing else`;

export async function rooflineCommand(arguments_: readonly string[]): Promise<number> {
  parseCommand(arguments_, { help, options: { threads: { type: "string" }, json: { type: "boolean" } } });
  return (await runNativeTool(["roofline", ...arguments_])).exitCode;
}
