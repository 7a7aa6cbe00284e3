// Owns: `ringside bench --context`: what a repository costs from the first scan to the first token: cold, warm, after a restart and
// after edits, each as `ask` would have it, on a copy that may be changed. Must never write to the repository it is given.
import { cp, lstat, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { ask } from "../answer/ask";
import type { AskDependencies } from "../answer/ask";
import { preview } from "../answer/preview";
import { readAhead } from "../answer/readAhead";
import type { Ranking } from "../context/basePlan";
import type { ContextPlan } from "../context/plan";
import { createEngineClient, layoutsIn, listSnapshots } from "../engine/client";
import type { EnginePort, LoadRequest, ModelInfo, Prompt, SyncDone } from "../protocol/engine";
import { failure, RingsideFailure } from "../protocol/errors";
import { middle } from "./benchFiles";
import type { BenchRow } from "./benchTable";
import { places } from "./places";
import { repositoryOf } from "./repositoryOf";

export interface ContextBench {
  readonly folder: string;
  readonly name: string;
  readonly load: LoadRequest;
  readonly signal: AbortSignal;
  readonly progress: (line: string) => void;
}

/** Where in the base a line is changed, as a share of its tokens. */
const editedAt = [0.1, 0.5, 0.9] as const;
const limitBytes = 4 * 2 ** 30;
const writtenWithinMs = 60_000;

/** Each test once, a row each. */
export async function measureContext(bench: ContextBench): Promise<readonly BenchRow[]> {
  return new Round(bench).run();
}

/** Of several rounds of one repository, given as they were measured: a row each test. */
export function mediansOfTests(rounds: readonly (readonly BenchRow[])[]): readonly BenchRow[] {
  const [first = []] = rounds;
  return first.map(({ test }) => middle(rounds.flatMap((rows) => rows.filter((row) => row["test"] === test))));
}

interface Read {
  readonly prompt: Prompt;
  readonly sync: SyncDone;
}

interface Asked {
  readonly row: BenchRow;
  readonly plan: ContextPlan;
  readonly sync: SyncDone;
}

/** An engine and what is remembered of the repository: what an editor has between its start and its end. */
class Life {
  readonly #dependencies: AskDependencies;
  #read: Read | null = null;

  constructor(
    readonly repository: string,
    snapshots: string | null,
    readonly load: LoadRequest,
    readonly signal: AbortSignal,
  ) {
    const engine = createEngineClient({
      hostScript: places.engineHost,
      addonPath: places.addon,
      ...(snapshots === null ? {} : { snapshots: { folder: snapshots, limitBytes } }),
    });
    this.#dependencies = {
      context: repositoryOf(repository, snapshots === null ? {} : { layouts: layoutsIn(snapshots, repository) }),
      engine: this.#overheard(engine),
      load,
      repository: snapshots === null ? "" : repository,
    };
  }

  async info(): Promise<ModelInfo> {
    return this.#dependencies.engine.load(this.load, { signal: this.signal });
  }

  /** "first": as soon as there is something to read at all. `changed`: a file that was saved since, and no other. */
  async plan(ranking: Ranking, changed?: string): Promise<{ readonly row: BenchRow; readonly plan: ContextPlan }> {
    const blocked = new Blocked();
    const startedMs = performance.now();
    if (changed !== undefined) this.#dependencies.context.noteChange(changed);
    const { signal } = this;
    const { plan } = await preview(this.#dependencies, { ranking, signal, onlyNoted: changed !== undefined });
    return { plan, row: { ms: performance.now() - startedMs, blocked_ms: blocked.longestMs() } };
  }

  /** The first token of an answer, and what was read for it; "first" is how the editor asks. */
  async first(text: string, ranking: Ranking = "first"): Promise<Asked> {
    this.#read = null;
    let [planningMs, plannedMs] = [0, 0];
    const blocked = new Blocked();
    const outcome = await ask(
      { text, effort: "high", maxTokens: 1, ranking },
      this.#dependencies,
      (event) => {
        if (event.type === "phase" && event.phase === "planning") planningMs = performance.now();
        if (event.type === "plan") plannedMs = performance.now();
      },
      this.signal,
    );
    const blockedMs = blocked.longestMs();
    if (outcome.error !== null) throw new RingsideFailure(outcome.error);
    this.signal.throwIfAborted();
    const { stats, plan } = outcome;
    const read = this.#lastRead();
    if (stats === null || plan === null || read === null) throw failure("internal", "bench", "an answer", "none");
    const { prompt, sync } = read;
    const readTokens = sync.promptTokens - sync.reusedTokens;
    const row = {
      ms: stats.firstTokenMs,
      plan_ms: plannedMs - planningMs,
      blocked_ms: blockedMs,
      prompt_tokens: sync.promptTokens,
      base_tokens: sync.baseTokens,
      read_tokens: readTokens,
      reread_tokens: Math.max(0, readTokens - (await this.#tailTokens(prompt, plan))),
      prefill_ms: sync.milliseconds,
    };
    return { row, plan, sync };
  }

  /** What the editor does before a question. */
  async readAhead(): Promise<ContextPlan> {
    return (await readAhead(this.#dependencies, { signal: this.signal })).plan;
  }

  /** What it does when nothing has happened for long: changed files are read in the place of their old copies. */
  async rebase(): Promise<BenchRow> {
    const blocked = new Blocked();
    const startedMs = performance.now();
    const { sync } = await readAhead(this.#dependencies, { rebase: true, signal: this.signal });
    const readTokens = sync.promptTokens - sync.reusedTokens;
    return {
      ms: performance.now() - startedMs,
      blocked_ms: blocked.longestMs(),
      prompt_tokens: sync.promptTokens,
      base_tokens: sync.baseTokens,
      read_tokens: readTokens,
      reread_tokens: readTokens,
      prefill_ms: sync.milliseconds,
    };
  }

  async end(): Promise<void> {
    await this.#dependencies.engine.stop();
  }

  #lastRead(): Read | null {
    return this.#read;
  }

  /** Question and supplement: what is new in each question. */
  async #tailTokens(prompt: Prompt, plan: ContextPlan): Promise<number> {
    const supplement = plan.prompt.filter(({ kind }) => kind === "supplement").length;
    const joint = supplement > 0 ? 1 : 0;
    const parts = prompt.pieces.slice(-(supplement + joint + 1)).flatMap((piece) => piece.parts);
    const texts = parts.flatMap((part) => ("text" in part ? [part.text] : []));
    const counts = await this.#dependencies.engine.countTokens(texts, this.signal);
    return counts.reduce((sum, count) => sum + count, parts.length - texts.length);
  }

  /** The same engine; its last reading is remembered here. */
  #overheard(engine: EnginePort): EnginePort {
    const sync: EnginePort["sync"] = async (prompt, options) => {
      const done = await engine.sync(prompt, options);
      this.#read = { prompt, sync: done };
      return done;
    };
    return new Proxy(engine, {
      get: (target, name) => {
        if (name === "sync") return sync;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
  }
}

/** How long at a time nothing else of this thread could run. */
class Blocked {
  readonly #delays = monitorEventLoopDelay({ resolution: 1 });

  constructor() {
    this.#delays.enable();
  }

  longestMs(): number {
    this.#delays.disable();
    return this.#delays.max / 1e6;
  }
}

class Round {
  readonly #bench: ContextBench;
  readonly #rows: BenchRow[] = [];
  #scratch = "";

  constructor(bench: ContextBench) {
    this.#bench = bench;
  }

  async run(): Promise<readonly BenchRow[]> {
    this.#scratch = await mkdtemp(path.join(tmpdir(), "ringside-bench-"));
    try {
      await mkdir(this.#pristine);
      await this.#fresh();
      const { plan, info } = await this.#plans();
      const questions = questionsOf(plan);
      await this.#cold(questions, info);
      await this.#restart(questions);
      for (const at of editedAt) await this.#edit(at, questions);
      const { device, backend, threads, folder } = info;
      const { name } = this.#bench;
      const always = { device, backend, threads, model: path.basename(folder), repository: name };
      const { files, bytes } = await sizeOf(this.#bench.folder);
      return this.#rows.map((row) => ({ ...always, ...row, files, file_bytes: bytes }));
    } finally {
      await rm(this.#scratch, { recursive: true, force: true });
    }
  }

  get #repository(): string {
    return path.join(this.#scratch, this.#bench.name);
  }
  get #storage(): string {
    return path.join(this.#scratch, "storage");
  }
  /** What the disk holds of the unchanged repository. */
  get #pristine(): string {
    return path.join(this.#scratch, "pristine");
  }

  #tell(test: string, row: BenchRow): void {
    this.#rows.push({ test, ...row });
    const figures = ["ms", "blocked_ms", "read_tokens", "reread_tokens"].flatMap((column) => {
      const value = row[column];
      return typeof value === "number" ? [`${column} ${String(Math.round(value))}`] : [];
    });
    this.#bench.progress(`${this.#bench.name}: ${test}: ${figures.join(", ")}`);
  }

  /** The repository as it was given, and what was kept of it before the edits, if anything was. */
  async #fresh(): Promise<void> {
    this.#bench.signal.throwIfAborted();
    for (const folder of [this.#repository, this.#storage]) await rm(folder, { recursive: true, force: true });
    await cp(this.#bench.folder, this.#repository, { recursive: true, preserveTimestamps: true });
    await cp(this.#pristine, this.#storage, { recursive: true, preserveTimestamps: true });
  }

  #life(): Life {
    const { load, signal } = this.#bench;
    return new Life(this.#repository, this.#storage, load, signal);
  }

  /** With the model loaded: plans from nothing, and one after a file was saved. */
  async #plans(): Promise<{ readonly plan: ContextPlan; readonly info: ModelInfo }> {
    await this.#living(async (life) => {
      await life.info();
      this.#tell("first plan", (await life.plan("first")).row);
    });
    return this.#living(async (life) => {
      const info = await life.info();
      const { plan, row } = await life.plan("complete");
      this.#tell("complete plan", row);
      const saved = placeAt(plan, 0.5).path;
      await this.#changeLine(saved);
      this.#tell("plan after a save", (await life.plan("complete", saved)).row);
      return { plan, info };
    });
  }

  /** Nothing is known: the model is loaded, the repository planned and read. Then a second question. */
  async #cold(questions: readonly string[], { stateBytes, kvBytesPerToken }: ModelInfo): Promise<void> {
    await this.#fresh();
    await this.#living(async (life) => {
      const [cold = "", warm = ""] = questions;
      const { row, sync } = await life.first(cold, "complete");
      const readTokens = sync.promptTokens - sync.reusedTokens;
      this.#tell("cold", { ...row, tok_s: (readTokens * 1_000) / sync.milliseconds });
      this.#tell("warm", (await life.first(warm)).row);
      const kept = await this.#written(sync.baseTokens);
      const disk = kept.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
      this.#tell("snapshots", {
        ...{ snapshots: kept.length, disk_bytes: disk, state_bytes: stateBytes, kv_token_bytes: kvBytesPerToken },
      });
    });
    await cp(this.#storage, this.#pristine, { recursive: true, preserveTimestamps: true });
  }

  /** Another process, which has the unchanged repository and what the first one wrote. */
  async #restart([, , question = ""]: readonly string[]): Promise<void> {
    await this.#fresh();
    await this.#living(async (life) => this.#tell("restart", (await life.first(question)).row));
  }

  /** A line is changed while the repository is warm; then there is an idle moment, and another question. */
  async #edit(at: number, questions: readonly string[]): Promise<void> {
    await this.#fresh();
    await this.#living(async (life) => {
      const { path: file, tokens, behindTokens } = placeAt(await life.readAhead(), at);
      const [first = "", second = first] = questions.filter((text) => !text.includes(file));
      await this.#changeLine(file);
      const where = `at ${String(Math.round(100 * at))} %`;
      const place = { edited_tokens: tokens, behind_tokens: behindTokens };
      this.#tell(`edit ${where}`, { ...(await life.first(first)).row, ...place });
      this.#tell(`rebase ${where}`, { ...(await life.rebase()), ...place });
      this.#tell(`question after the rebase ${where}`, (await life.first(second)).row);
    });
  }

  async #living<T>(work: (life: Life) => Promise<T>): Promise<T> {
    const life = this.#life();
    try {
      return await work(life);
    } finally {
      await life.end();
    }
  }

  /** A line in the middle of the file is there twice afterwards. */
  async #changeLine(file: string): Promise<void> {
    const place = path.join(this.#repository, file);
    const lines = (await readFile(place, "utf8")).split("\n");
    const middleLine = lines.length >> 1;
    lines.splice(middleLine, 0, lines[middleLine] ?? "");
    await writeFile(place, lines.join("\n"));
  }

  /** The files are written beside the answer; this waits for the last of the base. */
  async #written(baseTokens: number): Promise<readonly { readonly toTokens: number; readonly fileBytes: number }[]> {
    const lastBoundary = baseTokens - (baseTokens % 64);
    for (const startedMs = performance.now(); performance.now() - startedMs < writtenWithinMs;) {
      this.#bench.signal.throwIfAborted();
      const kept = await listSnapshots(this.#storage);
      if (kept.some(({ toTokens }) => toTokens >= lastBoundary)) return kept;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw failure("internal", "bench", "snapshots of the whole base", "fewer");
  }
}

/** Names a file of the base each, so that little is added for them. */
function questionsOf({ segments }: ContextPlan): readonly string[] {
  const base = segments.filter(({ kind }) => kind === "base");
  const count = Math.min(base.length, 8);
  return Array.from({ length: count }, (_, index) => {
    const file = base[Math.floor((index * base.length) / count)];
    return `What is in ${file?.path ?? ""}?`;
  });
}

interface Place {
  readonly path: string;
  readonly tokens: number;
  /** Of the base behind the middle of the file, where the line is changed. */
  readonly behindTokens: number;
}

/** The file, read in full, in which that share of the base's tokens ends, or the next such file. */
function placeAt({ segments }: ContextPlan, share: number): Place {
  const base = segments.filter(({ kind }) => kind === "base");
  const total = base.reduce((sum, { tokens }) => sum + tokens, 0);
  let before = 0;
  let place: Place | null = null;
  for (const { path: file, tokens, mode } of base) {
    before += tokens;
    if (mode !== "full") continue;
    place = { path: file, tokens, behindTokens: total - before + Math.round(tokens / 2) };
    if (before >= share * total) break;
  }
  if (place === null) throw failure("internal", "bench", "a file that is read in full", "none");
  return place;
}

async function sizeOf(folder: string): Promise<{ readonly files: number; readonly bytes: number }> {
  let [files, bytes] = [0, 0];
  for (const entry of await readdir(folder, { recursive: true })) {
    const found = await lstat(path.join(folder, entry));
    if (!found.isFile()) continue;
    files += 1;
    bytes += found.size;
  }
  return { files, bytes };
}
