// Owns: `ringside bench --scan`: one question to shards of a repository, answered one after another and as one batch in turns, and
// how much sooner the batch is done. Must never hide that the tokens differ, nor count the reading of the shards.
import { greedy } from "../answer/ask";
import { shareForQuestion } from "../answer/preview";
import { buildPrompt } from "../answer/prompt";
import type { EnginePort, LoadRequest, ModelInfo, Prompt } from "../protocol/engine";
import { fileSegment } from "../context/segment";
import { failure } from "../protocol/errors";
import { median } from "./benchFiles";
import { repositoryOf } from "./repositoryOf";
import { writeOut } from "./standardStreams";

export interface ScanBench {
  readonly repository: string;
  readonly text: string;
  readonly shards: number;
  readonly shardTokens: number;
  /** Of each shard, reasoning and answer together. */
  readonly maxTokens: number;
  readonly promptLookup: boolean;
}

/** Of all shards together. Times are medians over the rounds; `ratio` is the median of the rounds' own ratios. */
export interface ScanReport {
  readonly device: string;
  readonly promptLookup: boolean;
  readonly promptTokens: readonly number[];
  readonly tokens: readonly number[];
  readonly alone_ms: number;
  readonly together_ms: number;
  readonly ratio: number;
  readonly ratios: readonly number[];
  readonly identical: boolean;
}

interface Written {
  readonly ids: readonly (readonly number[])[];
  readonly milliseconds: number;
}

export async function measureScan(
  engine: EnginePort,
  load: LoadRequest,
  bench: ScanBench,
  rounds: number,
): Promise<ScanReport> {
  const info = await engine.load(load);
  const prompts = await promptsOf(engine, info, bench);
  const request = { maxTokens: bench.maxTokens, sampler: greedy, promptLookup: bench.promptLookup };
  const promptTokens: number[] = [];
  // The model drafts from what it wrote before: loaded anew, never from the same answer of the measurement before.
  const begin = async (): Promise<void> => {
    if (!bench.promptLookup) return;
    await engine.unload();
    await engine.load(load);
  };
  const alone = async (): Promise<Written> => {
    await begin();
    const ids: number[][] = prompts.map(() => []);
    let milliseconds = 0;
    for (const [index, prompt] of prompts.entries()) {
      promptTokens[index] = (await engine.sync(prompt)).promptTokens;
      const done = await engine.generate(request, { onTokens: (batch) => ids[index]?.push(...batch.ids) });
      milliseconds += done.milliseconds;
    }
    return { ids, milliseconds };
  };
  const together = async (): Promise<Written> => {
    await begin();
    const ids: number[][] = prompts.map(() => []);
    for (const [index, prompt] of prompts.entries()) await engine.sync(prompt, { session: index + 1 });
    const done = await engine.generateTogether(
      prompts.map((_, index) => ({ session: index + 1, ...request })),
      { onTokens: (session, batch) => ids[session - 1]?.push(...batch.ids) },
    );
    return { ids, milliseconds: Math.max(...done.map(({ milliseconds }) => milliseconds)) };
  };
  await alone(); // Not counted: it finds caches cold.
  const times: { readonly alone: Written; readonly together: Written }[] = [];
  while (times.length < rounds) times.push({ alone: await alone(), together: await together() });
  const ratios = times.map((time) => time.alone.milliseconds / time.together.milliseconds);
  return {
    device: info.device,
    promptLookup: bench.promptLookup,
    promptTokens,
    tokens: times[0]?.together.ids.map((ids) => ids.length) ?? [],
    alone_ms: median(times.map((time) => time.alone.milliseconds)),
    together_ms: median(times.map((time) => time.together.milliseconds)),
    ratio: median(ratios),
    ratios,
    identical: times.every((time) => JSON.stringify(time.alone.ids) === JSON.stringify(time.together.ids)),
  };
}

export async function showScan(report: ScanReport, json: boolean): Promise<void> {
  const lines = [
    report.device,
    `${String(report.promptTokens.length)} shards of ${range(report.promptTokens)} tokens, answers of ${range(report.tokens)}, ${report.promptLookup ? "with" : "without"} prompt lookup`,
    `${report.alone_ms.toFixed(0)} ms one after another, ${report.together_ms.toFixed(0)} ms together: ${report.ratio.toFixed(2)} times (${report.ratios.map((ratio) => ratio.toFixed(2)).join(", ")})`,
    `The tokens ${report.identical ? "are the same" : "DIFFER"}.`,
  ];
  await writeOut(json ? `${JSON.stringify(report, null, 1)}\n` : `${lines.join("\n")}\n`);
}

/** Of the largest shards, as `ask --scan` asks them. */
async function promptsOf(engine: EnginePort, info: ModelInfo, bench: ScanBench): Promise<readonly Prompt[]> {
  const context = repositoryOf(bench.repository);
  const scan = await context.scan();
  const shares = await shareForQuestion({ text: bench.text, history: [] }, engine, { scan, info });
  const { shards } = await context.cut(scan, {
    model: info.folder,
    count: (texts, signal) => engine.countTokens(texts, signal),
    scope: [],
    shardTokens: Math.min(bench.shardTokens, shares.availableTokens),
  });
  const largest = [...shards].sort((a, b) => b.tokens - a.tokens).slice(0, bench.shards);
  if (largest.length < bench.shards) {
    throw failure("argument-invalid", "--repo", `${String(bench.shards)} shards`, String(largest.length));
  }
  return largest.map(({ files }) => {
    const segments = files.map((file) => fileSegment("base", file));
    return buildPrompt({ repository: scan.name, segments, history: [], question: bench.text, start: "open" });
  });
}

function range(numbers: readonly number[]): string {
  return `${String(Math.min(...numbers))} to ${String(Math.max(...numbers))}`;
}
