// Owns: `ringside ask`: questions about a folder, answered one after another on the same warm repository.
// Must never let text of the repository or the model steer the terminal.
import { readFile } from "node:fs/promises";
import * as path from "node:path";
import { ask, defaultShardTokens } from "../answer/ask";
import type { AskDependencies, AskInput, AskOutcome } from "../answer/ask";
import { layoutsIn } from "../engine/client";
import { failure } from "../protocol/errors";
import { choiceOption, integerOption, loadRequest, modelHelp, modelOptions, numberOption } from "./arguments";
import { parseCommand, UsageError } from "./arguments";
import { AskScreen } from "./askScreen";
import { withEngine } from "./engine";
import { choiceHelp, choiceOptions, choicesOf, planJson, withoutSlashes } from "./pack";
import { places } from "./places";
import { repositoryOf } from "./repositoryOf";
import { writeOut } from "./standardStreams";
import { wordError } from "./words";

const help = `ringside ask --repo DIR [options] "question"

Reads the repository and answers; each quote and path of the answer is checked against the files.

  --repo DIR           the repository (default: this folder)
  --questions FILE     one question a line, instead of one on the command line
  --effort NAME        off, low or high (default): how long the model may reason
  --scope DIR          read this folder only; may be given several times
  --pin FILE           read this file in any case; may be given several times
${choiceHelp}
  --scan               read every file: the repository is cut into shards that each fit the window, all are asked, and
                       what they found is put together; for "every place that ..." and for what does not fit
  --shard-tokens N     with --scan: room for the files of one shard (default ${String(defaultShardTokens)}, at most what fits)
  --max-tokens N       reasoning and answer together (with --scan: for each shard)
  --temperature T      0 (default): always the likeliest token
  --top-p P            default 1
  --seed N             default 0
  --no-snapshots       neither keep what was read for the next command nor use what an earlier one kept
  --no-lookup          write without trying what stood after the same words before; slower, the same words
${modelHelp}`;

const options = {
  ...modelOptions,
  repo: { type: "string" },
  questions: { type: "string" },
  effort: { type: "string" },
  scope: { type: "string", multiple: true },
  pin: { type: "string", multiple: true },
  ...choiceOptions,
  scan: { type: "boolean" },
  "shard-tokens": { type: "string" },
  "max-tokens": { type: "string" },
  temperature: { type: "string" },
  "top-p": { type: "string" },
  seed: { type: "string" },
  "no-snapshots": { type: "boolean" },
  "no-lookup": { type: "boolean" },
} as const;

export async function askCommand(arguments_: readonly string[]): Promise<number> {
  const { values, positionals } = parseCommand(arguments_, { help, options, positionals: [0, 1] });
  const load = loadRequest(values);
  const maxTokens = integerOption(values["max-tokens"], "--max-tokens", [1, 1 << 24], 0);
  const input: Omit<AskInput, "text"> = {
    effort: choiceOption(values.effort, "--effort", ["off", "low", "high"], "high"),
    scope: (values.scope ?? []).map(withoutSlashes),
    pinned: values.pin ?? [],
    choices: choicesOf(values),
    ...(maxTokens === 0 ? {} : { maxTokens }),
    promptLookup: values["no-lookup"] !== true,
    ...scanOptions(values),
    sampler: {
      temperature: numberOption(values.temperature, "--temperature", [0, 100], 0),
      topP: numberOption(values["top-p"], "--top-p", [0.001, 1], 1),
      repetitionPenalty: 1,
      seed: integerOption(values.seed, "--seed", [0, Number.MAX_SAFE_INTEGER], 0),
    },
  };
  const questions = await readQuestions(positionals[0], values.questions);
  const folder = path.resolve(values.repo ?? ".");
  const keepsSnapshots = values["no-snapshots"] !== true;
  const repository = keepsSnapshots ? folder : "";
  const layouts = keepsSnapshots ? layoutsIn(places.snapshots, folder) : undefined;
  const context = repositoryOf(folder, { layouts });
  return withEngine(
    (engine) =>
      answerAll(
        questions,
        input,
        { context, engine, load, repository },
        values.json === true,
        values.questions !== undefined,
      ),
    { keepsSnapshots },
  );
}

function scanOptions(values: {
  readonly scan?: boolean | undefined;
  readonly pin?: readonly string[] | undefined;
  readonly "shard-tokens"?: string | undefined;
}): Pick<AskInput, "exhaustive" | "shardTokens"> {
  const shardTokens = integerOption(values["shard-tokens"], "--shard-tokens", [64, 1 << 24], defaultShardTokens);
  if (values.scan !== true) {
    if (values["shard-tokens"] !== undefined) throw new UsageError("--shard-tokens is of use with --scan only.");
    return {};
  }
  if (values.pin !== undefined) throw new UsageError("--scan reads every file; leave --pin out.");
  return { exhaustive: true, shardTokens };
}

async function readQuestions(question: string | undefined, file: string | undefined): Promise<readonly string[]> {
  if ((question === undefined) === (file === undefined)) {
    throw new UsageError('Give one question, or a file of questions with "--questions FILE".');
  }
  if (question !== undefined) return [question];
  const lines = await readFile(file ?? "", "utf8").catch((cause: unknown) => {
    throw failure("file-unreadable", file, "", cause instanceof Error ? cause.message : String(cause));
  });
  return lines.split(/\r?\n/).filter((line) => line.trim() !== "");
}

async function answerAll(
  questions: readonly string[],
  input: Omit<AskInput, "text">,
  dependencies: AskDependencies,
  json: boolean,
  isList: boolean,
): Promise<number> {
  const stop = new AbortController();
  const onInterrupt = (): void => stop.abort();
  process.once("SIGINT", onInterrupt);
  const results: object[] = [];
  let exitCode = 0;
  try {
    for (const text of questions) {
      const screen = new AskScreen(process.stdout, process.stderr, json);
      if (isList && !json) await writeOut(`\n# ${text}\n\n`);
      const outcome = await ask({ ...input, text }, dependencies, (event) => screen.show(event), stop.signal);
      screen.end(outcome);
      if (outcome.error !== null) {
        process.stderr.write(`ringside: ${wordError(outcome.error)}\n`);
        exitCode = 1;
      }
      results.push(outcomeJson(text, outcome));
      if (stop.signal.aborted) break;
    }
  } finally {
    process.removeListener("SIGINT", onInterrupt);
  }
  if (json && isList) await writeOut(`${JSON.stringify(results, null, 1)}\n`);
  else if (json && exitCode === 0) await writeOut(`${JSON.stringify(results[0], null, 1)}\n`);
  return exitCode;
}

function leftOutJson({ leftOut }: AskOutcome): object[] {
  return leftOut.map(({ file, line, tokens }) => ({ path: file.path, line, tokens }));
}

function outcomeJson(question: string, outcome: AskOutcome): object {
  return {
    question,
    answer: outcome.answer,
    reasoning: outcome.reasoning,
    citations: outcome.citations,
    ...(outcome.refusal === null ? {} : { refusal: outcome.refusal }),
    ...(outcome.plan === null ? {} : { plan: planJson(outcome.plan) }),
    ...(outcome.shards.length === 0 ? {} : { shards: outcome.shards, leftOut: leftOutJson(outcome) }),
    ...(outcome.stats === null ? {} : { stats: outcome.stats }),
    ...(outcome.done === null ? {} : { done: outcome.done }),
    ...(outcome.error === null ? {} : { error: outcome.error }),
  };
}
