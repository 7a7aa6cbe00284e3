// Owns: `ringside bench --lookup`: questions answered with and without prompt lookup in turns, as `ask` would, and how much
// faster the tokens come with it. Must never hide that the tokens differ.
import { greedy } from "../answer/ask";
import { planQuestion } from "../answer/preview";
import { buildPrompt } from "../answer/prompt";
import type { EnginePort, GenerateDone, LoadRequest, ModelInfo, Prompt } from "../protocol/engine";
import type { Effort } from "../protocol/qa";
import { median } from "./benchFiles";
import { repositoryOf } from "./repositoryOf";
import { writeOut } from "./standardStreams";

export interface LookupQuestions {
  readonly repository: string;
  readonly texts: readonly string[];
  readonly effort: Effort;
  /** Of each question, reasoning and answer together. */
  readonly maxTokens: number;
}

/** Of all questions together. Speeds are medians over the rounds; `ratio` is the median of the rounds' own ratios. */
export interface LookupReport {
  readonly device: string;
  readonly questions: number;
  readonly tokens: number;
  readonly drafted: number;
  readonly accepted: number;
  readonly tok_s: number;
  readonly tok_s_without: number;
  readonly ratio: number;
  readonly ratios: readonly number[];
  readonly identical: boolean;
}

interface Written {
  readonly ids: readonly number[];
  readonly done: GenerateDone;
}

export async function measureLookup(
  engine: EnginePort,
  load: LoadRequest,
  questions: LookupQuestions,
  rounds: number,
): Promise<LookupReport> {
  const info = await engine.load(load);
  const prompts = await promptsOf(engine, info, questions);
  const write = async (prompt: Prompt, promptLookup: boolean): Promise<Written> => {
    await engine.sync(prompt);
    const ids: number[] = [];
    const request = { maxTokens: questions.maxTokens, sampler: greedy, promptLookup };
    const done = await engine.generate(request, { onTokens: (batch) => ids.push(...batch.ids) });
    return { ids, done };
  };
  const round = async (): Promise<readonly (readonly [fast: Written, slow: Written])[]> => {
    const pairs: (readonly [fast: Written, slow: Written])[] = [];
    for (const prompt of prompts) {
      const slow = await write(prompt, false);
      pairs.push([await write(prompt, true), slow]);
    }
    return pairs;
  };
  await round(); // Not counted: it finds caches cold and the cost of a pass unknown.
  const speeds: (readonly [fast: number, slow: number])[] = [];
  let identical = true;
  let last: readonly Written[] = [];
  while (speeds.length < rounds) {
    const pairs = await round();
    last = pairs.map(([fast]) => fast);
    speeds.push([speed(last), speed(pairs.map(([, slow]) => slow))]);
    identical &&= pairs.every(([fast, slow]) => fast.ids.join() === slow.ids.join());
  }
  const ratios = speeds.map(([fast, slow]) => fast / slow);
  return {
    device: info.device,
    questions: prompts.length,
    tokens: total(last, "tokens"),
    drafted: total(last, "drafted"),
    accepted: total(last, "accepted"),
    tok_s: median(speeds.map(([fast]) => fast)),
    tok_s_without: median(speeds.map(([, slow]) => slow)),
    ratio: median(ratios),
    ratios,
    identical,
  };
}

export async function showLookup(report: LookupReport, json: boolean): Promise<void> {
  const lines = [
    report.device,
    `${String(report.questions)} questions, ${String(report.tokens)} tokens written, ${String(report.accepted)} of ${String(report.drafted)} drafts right`,
    `${report.tok_s.toFixed(1)} tok/s with prompt lookup, ${report.tok_s_without.toFixed(1)} without: ${report.ratio.toFixed(2)} times`,
    `The tokens ${report.identical ? "are the same" : "DIFFER"}.`,
  ];
  await writeOut(json ? `${JSON.stringify(report, null, 1)}\n` : `${lines.join("\n")}\n`);
}

/** Exactly the prompts of first questions. */
async function promptsOf(
  engine: EnginePort,
  info: ModelInfo,
  { repository, texts, effort }: LookupQuestions,
): Promise<readonly Prompt[]> {
  const context = repositoryOf(repository);
  const scan = await context.scan();
  const start = effort === "off" ? "closed" : "open";
  const prompts: Prompt[] = [];
  for (const text of texts) {
    const { plan } = await planQuestion({ text, history: [], scope: [], pinned: [] }, context, engine, scan, info);
    prompts.push(buildPrompt({ repository: scan.name, segments: plan.prompt, history: [], question: text, start }));
  }
  return prompts;
}

/** Of the writing alone; reading the prompts is not in it. */
function speed(written: readonly Written[]): number {
  return (total(written, "tokens") * 1000) / total(written, "milliseconds");
}

function total(written: readonly Written[], field: "tokens" | "drafted" | "accepted" | "milliseconds"): number {
  return written.reduce((sum, { done }) => sum + done[field], 0);
}
