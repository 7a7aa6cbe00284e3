// Owns: `ringside COMMAND …`: finds the command, and turns failures into one sentence and an exit code: 0 done, 1 failed, 2 wrong usage.
import { RingsideFailure } from "../protocol/errors";
import { HelpRequested, UsageError } from "./arguments";
import { askCommand } from "./ask";
import { benchCommand } from "./bench";
import { detokenizeCommand } from "./detokenize";
import { logitsCommand } from "./logits";
import { packCommand } from "./pack";
import { quantizeCommand } from "./quantize";
import { rooflineCommand } from "./roofline";
import { snapshotsCommand } from "./snapshots";
import { tokenizeCommand } from "./tokenize";
import { wordError } from "./words";

interface Command {
  readonly summary: string;
  readonly run: (arguments_: readonly string[]) => Promise<number>;
}

const commands: ReadonlyMap<string, Command> = new Map([
  ["ask", { summary: "answer a question about a repository", run: askCommand }],
  ["pack", { summary: "show which files a question would read", run: packCommand }],
  ["tokenize", { summary: "text to token ids", run: tokenizeCommand }],
  ["detokenize", { summary: "token ids to text", run: detokenizeCommand }],
  ["logits", { summary: "run the model over token ids", run: logitsCommand }],
  ["quantize", { summary: "write a checkpoint with quantised weights", run: quantizeCommand }],
  ["bench", { summary: "measure prefill and decode", run: benchCommand }],
  ["snapshots", { summary: "show or delete what is kept of repositories", run: snapshotsCommand }],
  ["roofline", { summary: "measure this machine's peaks", run: rooflineCommand }],
]);

const usage = `ringside COMMAND [options]

${[...commands].map(([name, { summary }]) => `  ${name.padEnd(12)} ${summary}`).join("\n")}

"ringside COMMAND --help" says more about one of them. With RINGSIDE_LOG=1 in the environment, what the engine process
tells of itself goes to standard error.`;

async function main([name, ...rest]: readonly string[]): Promise<number> {
  if (name === "--help" || name === "-h" || name === "help") {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  const command = name === undefined ? undefined : commands.get(name);
  if (command === undefined) {
    process.stderr.write(`${name === undefined ? "" : `ringside: there is no command "${name}".\n\n`}${usage}\n`);
    return 2;
  }
  try {
    return await command.run(rest);
  } catch (cause) {
    return report(cause, name ?? "");
  }
}

function report(cause: unknown, name: string): number {
  if (cause instanceof HelpRequested) {
    process.stdout.write(`${cause.message}\n`);
    return 0;
  }
  if (cause instanceof UsageError) {
    process.stderr.write(`ringside ${name}: ${cause.message}\nSee "ringside ${name} --help".\n`);
    return 2;
  }
  const message = cause instanceof RingsideFailure ? wordError(cause.error) : String(cause);
  process.stderr.write(`ringside: ${message}\n`);
  return 1;
}

// Whoever reads our output may close it early, as `head` does; that is no failure of ours to tell about.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});
void main(process.argv.slice(2)).then((exitCode) => {
  process.exitCode = exitCode;
});
