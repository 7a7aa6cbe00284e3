// Owns: `ringside logits`: a forward pass over given token ids, fed in given pieces, reported as numbers.
import { readFile } from "node:fs/promises";
import * as path from "node:path";
import { failure } from "../protocol/errors";
import { integerOption, loadRequest, modelHelp, modelOptions, parseCommand, UsageError } from "./arguments";
import { idsOf } from "./detokenize";
import { withEngine } from "./engine";
import { writeOut } from "./standardStreams";

const help = `ringside logits --tokens FILE [options]

Runs the model over the token ids in FILE (a JSON list). With --json it prints {argmax, logprobs, last, stateNorms},
else a summary.

  --tokens FILE        the ids
  --split N,N,…        feed the ids in pieces of these lengths, the rest as one piece
${modelHelp}`;

export async function logitsCommand(arguments_: readonly string[]): Promise<number> {
  const { values } = parseCommand(arguments_, {
    help,
    options: { ...modelOptions, tokens: { type: "string" }, split: { type: "string" } },
  });
  if (values.tokens === undefined) throw new UsageError("--tokens FILE is missing.");
  const split = (values.split?.split(",") ?? []).map((part) => integerOption(part, "--split", [1, 1 << 24], 1));
  const request = loadRequest(values);
  const ids = await readIds(path.resolve(values.tokens));
  const logits = await withEngine(async (engine) => {
    await engine.load(request);
    return engine.logits(ids, split);
  });
  if (values.json === true) {
    await writeOut(`${JSON.stringify(logits)}\n`);
    return 0;
  }
  const mean = logits.logprobs.reduce((sum, logprob) => sum + logprob, 0) / logits.logprobs.length;
  await writeOut(
    `${String(ids.length)} tokens; next token: ${String(logits.argmax.at(-1))}` +
      `${Number.isFinite(mean) ? `; mean log-probability of the given tokens: ${mean.toFixed(4)}` : ""}\n`,
  );
  return 0;
}

async function readIds(file: string): Promise<readonly number[]> {
  let json: string;
  try {
    json = await readFile(file, "utf8");
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "";
    throw code === "ENOENT" ? failure("file-missing", file) : failure("file-unreadable", file, "", code);
  }
  let value: unknown;
  try {
    value = JSON.parse(json) as unknown;
  } catch {
    throw failure("file-malformed", file, "a JSON list of token ids", "other text");
  }
  return idsOf(value, file);
}
