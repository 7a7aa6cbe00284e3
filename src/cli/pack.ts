// Owns: `ringside pack`: which files a question would read, and what is left out and why, without asking anything.
import { createHash } from "node:crypto";
import type { ContextPlan } from "../context/plan";
import type { FileChoice, FileChoices, PlannedFile } from "../protocol/qa";
import { preview } from "../answer/preview";
import { integerOption, loadRequest, modelHelp, modelOptions, parseCommand } from "./arguments";
import { withEngine } from "./engine";
import { repositoryOf } from "./repositoryOf";
import { writeOut } from "./standardStreams";
import { wordWindowFit } from "./words";

/** What the user wants of single files and folders, for the commands that plan. */
export const choiceOptions = {
  full: { type: "string", multiple: true },
  outline: { type: "string", multiple: true },
  "leave-out": { type: "string", multiple: true },
} as const;

export const choiceHelp = `  --full PATH          read this file, or all in this folder (its path ends with "/"), in full whatever its rank
  --outline PATH       read the outline alone
  --leave-out PATH     do not read it; of all that may be said of a file, the longest path counts`;

const help = `ringside pack --repo DIR [options] ["question"]

Shows the files that are read for every question, those added for this question, and everything left out with the reason.

  --repo DIR           the repository (default: this folder)
  --budget N           tokens for files, at most what the model's window leaves
  --scope DIR          read this folder only; may be given several times
  --pin FILE           read this file in any case; may be given several times
${choiceHelp}
${modelHelp}`;

export async function packCommand(arguments_: readonly string[]): Promise<number> {
  const { values, positionals } = parseCommand(arguments_, {
    help,
    options: {
      ...modelOptions,
      repo: { type: "string" },
      budget: { type: "string" },
      scope: { type: "string", multiple: true },
      pin: { type: "string", multiple: true },
      ...choiceOptions,
    },
    positionals: [0, 1],
  });
  const load = loadRequest(values);
  const budgetTokens = integerOption(values.budget, "--budget", [1, 1 << 24], 0);
  const context = repositoryOf(values.repo ?? ".");
  const { plan } = await withEngine((engine) =>
    preview(
      { context, engine, load },
      {
        text: positionals[0] ?? "",
        scope: (values.scope ?? []).map(withoutSlashes),
        pinned: values.pin ?? [],
        choices: choicesOf(values),
        ...(budgetTokens === 0 ? {} : { budgetTokens }),
      },
    ),
  );
  const fit = wordWindowFit(plan.summary);
  if (fit !== null) process.stderr.write(`${fit}\n`);
  await writeOut(values.json === true ? `${JSON.stringify(packJson(plan), null, 1)}\n` : packText(plan));
  return 0;
}

/** A folder as paths of a repository name it. */
export function withoutSlashes(folder: string): string {
  return folder.replace(/^(?:\.?\/)+|\/+$/g, "");
}

export function choicesOf(values: {
  readonly full?: readonly string[] | undefined;
  readonly outline?: readonly string[] | undefined;
  readonly "leave-out"?: readonly string[] | undefined;
}): FileChoices {
  const chosen = (paths: readonly string[] | undefined, choice: FileChoice): [string, FileChoice][] =>
    (paths ?? []).map((path) => [path.replace(/^(?:\.?\/)+(?=.)/, ""), choice]);
  return Object.fromEntries([
    ...chosen(values.full, "full"),
    ...chosen(values.outline, "outline"),
    ...chosen(values["leave-out"], "out"),
  ]);
}

/** The plan as `ask` reports it too. */
export function planJson(plan: ContextPlan): object {
  return { budgetTokens: plan.budgetTokens, files: plan.files, flagged: plan.flagged };
}

function packJson(plan: ContextPlan): object {
  const segments = plan.segments.map(({ path, tokens, text, kind, mode }) => ({
    path,
    tokens,
    kind,
    mode,
    sha256: createHash("sha256").update(text, "utf8").digest("hex"),
  }));
  return { ...planJson(plan), prefixKey: plan.prefixKey, segments };
}

function packText(plan: ContextPlan): string {
  const { readFiles, totalFiles, readTokens } = plan.summary;
  const lines = [`${readFiles} of ${totalFiles} files, ${readTokens} of ${plan.budgetTokens} tokens`, ""];
  for (const { path, tokens, mode, reason } of plan.files) {
    const count = tokens === 0 ? "" : String(tokens);
    lines.push(`${count.padStart(8)}  ${printedReason(mode, reason).padEnd(19)}  ${printable(path)}`);
  }
  for (const { path, hidden, removed } of plan.flagged) {
    lines.push(`${printable(path)}: ${hidden} hidden characters, ${removed} invisible ones taken out`);
  }
  return `${lines.join("\n")}\n`;
}

function printedReason(mode: PlannedFile["mode"], reason: PlannedFile["reason"]): string {
  return mode === "dropped" ? `- ${reason}` : mode === "outline" ? `${reason}, outline` : reason;
}

/** Names and text of a repository must not steer the terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, (character) =>
    character === "\n" || character === "\t" ? character : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );
}
