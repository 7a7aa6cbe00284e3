// Owns: what is remembered about one repository between questions: its scan, its token counts and its base, so that an unchanged
// repository gives the same prefix and costs nothing to plan again. Must never outlive a change: every question scans first.
import { failure } from "../protocol/errors";
import type { FileChoices } from "../protocol/qa";
import { inScope, planBase } from "./basePlan";
import type { BasePlan, Ranking } from "./basePlan";
import { choiceLookup } from "./choices";
import { FileFacts } from "./fileFacts";
import type { FactSources } from "./fileFacts";
import type { LayoutStore } from "./layoutStore";
import { Pace } from "./pace";
import { planContext } from "./plan";
import type { ContextPlan } from "./plan";
import type { RepoReader } from "./repoReader";
import { Scanner } from "./scan";
import type { RepositoryScan, ScanLimits, ScanOptions } from "./scan";
import { cutShards } from "./shards";
import type { ShardCut } from "./shards";
import { StandingBases } from "./standingBase";
import type { StandingBase } from "./standingBase";
import { wantedFiles } from "./supplement";
import { TokenCounts } from "./tokenCounts";
import type { CountTokens } from "./tokenCounts";

export interface ContextRequest {
  /** Names the tokenizer that `count` uses: counts are kept for as long as it is the same. */
  readonly model: string;
  readonly count: CountTokens;
  /** Room for all files of the prompt when question and conversation have their usual length. */
  readonly budgetTokens: number;
  /** What is really left for files now. */
  readonly availableTokens: number;
  /** "": the base alone. */
  readonly question: string;
  readonly scope: readonly string[];
  readonly pinned: readonly string[];
  readonly choices?: FileChoices;
  /** Without it, "complete". */
  readonly ranking?: Ranking;
  /** The moment is idle: changed files move to the end of the base, where their newest text takes the place of old copies. */
  readonly rebase?: boolean;
}

export interface ContextOptions extends FactSources {
  readonly cacheBytes?: number;
  readonly limits?: Partial<ScanLimits>;
  /** Where the base as it was read outlives the process; without it, the next process begins with a new one. */
  readonly layouts?: LayoutStore | undefined;
}

export interface ContextScanOptions extends Omit<ScanOptions, "changed"> {
  readonly onlyNoted?: boolean;
}

/** Share of the budget kept free for files that a question names. */
const reserveShare = 0.2;
/** Where more changed, a scan of everything is sooner through: it looks at several files at a time. */
const mostNoted = 1_000;

export class RepositoryContext {
  readonly #scanner: Scanner;
  readonly #facts: FileFacts;
  readonly #noted = new Set<string>();
  #scan: RepositoryScan | undefined;
  #plan: ContextPlan | undefined;
  #counts: { readonly model: string; readonly counts: TokenCounts } | undefined;
  #base: { readonly key: string; readonly scan: RepositoryScan; readonly plan: BasePlan } | undefined;

  readonly #bases: StandingBases;
  readonly #standing = new WeakMap<ContextPlan, StandingBase>();

  constructor(
    readonly reader: RepoReader,
    options: ContextOptions,
  ) {
    this.#scanner = new Scanner(reader, options);
    this.#facts = new FileFacts(options);
    this.#bases = new StandingBases(options.layouts);
  }

  /** The last scan and plan, for what is shown between questions. */
  get lastScan(): RepositoryScan | undefined {
    return this.#scan;
  }
  get lastPlan(): ContextPlan | undefined {
    return this.#plan;
  }

  /** Files that were changed, moved or deleted since the model read them, as of the last plan. */
  get stale(): readonly string[] {
    return this.#bases.stale;
  }

  /** The model has read this plan's base. Resolves when the next process will know. */
  async markRead(plan: ContextPlan): Promise<void> {
    const base = this.#standing.get(plan);
    if (base !== undefined) await this.#bases.markRead(base);
  }

  /** A file may have changed, come or gone. */
  noteChange(path: string): void {
    if (this.#noted.size <= mostNoted) this.#noted.add(path);
  }

  /** `onlyNoted`: everything that changed since the last scan was noted, and nothing else need be looked at. */
  async scan({ onlyNoted = false, ...options }: ContextScanOptions = {}): Promise<RepositoryScan> {
    const noted = [...this.#noted];
    this.#noted.clear();
    try {
      const isEnough = onlyNoted && noted.length <= mostNoted;
      this.#scan = await this.#scanner.scan({ ...options, ...(isEnough ? { changed: noted } : {}) });
      return this.#scan;
    } catch (error) {
      for (const path of noted) this.#noted.add(path);
      throw error;
    }
  }

  /** Rejects with "repository-empty" when there is nothing to read. */
  async plan(scan: RepositoryScan, request: ContextRequest, signal?: AbortSignal): Promise<ContextPlan> {
    const { scope, pinned, budgetTokens, availableTokens, choices = {} } = request;
    const files = scan.files.filter((file) => inScope(file.path, scope));
    if (files.length === 0 && pinned.length === 0) throw failure("repository-empty", scan.name);
    const counts = this.#countsFor(request);
    const reserveTokens = Math.floor(budgetTokens * reserveShare);
    const { model, rebase = false } = request;
    // Each of the steps passes over all files a few times.
    const pace = new Pace(signal);
    const fresh = await this.#baseFor(scan, counts, { ...request, reserveTokens }, signal);
    await pace.breathe();
    const key = JSON.stringify({ budgetTokens, scope, choices: Object.entries(choices).sort() });
    const base = await this.#bases.update(
      { scan, counts, fresh, model, key, scope, budgetTokens, reserveTokens, rebase },
      signal,
    );
    await pace.breathe();
    const choiceOf = choiceLookup(choices);
    // What the user wants outlined or out of the prompt, no question brings in.
    const offered = files.filter(({ path }) => !["out", "outline"].includes(choiceOf(path) ?? ""));
    const inBase = new Set(base.files.filter(({ mode }) => mode === "full").map(({ file }) => file));
    const wanted = await wantedFiles(scan, offered, request.question, inBase, signal);
    await pace.breathe();
    this.#plan = await planContext(
      { scan, counts, base, wanted, pinned, scope, choices, budgetTokens, availableTokens, reserveTokens },
      signal,
    );
    this.#standing.set(this.#plan, base);
    return this.#plan;
  }

  /** Every file of the scope, in parts that each fit one prompt. Rejects with "repository-empty" when there is nothing to read. */
  async cut(
    scan: RepositoryScan,
    request: Pick<ContextRequest, "model" | "count" | "scope" | "choices"> & { readonly shardTokens: number },
    signal?: AbortSignal,
  ): Promise<ShardCut> {
    const choiceOf = choiceLookup(request.choices ?? {});
    const files = scan.files.filter((file) => inScope(file.path, request.scope) && choiceOf(file.path) !== "out");
    if (files.length === 0) throw failure("repository-empty", scan.name);
    return cutShards({ scan, counts: this.#countsFor(request), files, shardTokens: request.shardTokens }, signal);
  }

  #countsFor({ model, count }: Pick<ContextRequest, "model" | "count">): TokenCounts {
    if (this.#counts?.model !== model) this.#counts = { model, counts: new TokenCounts(count, this.#facts) };
    return this.#counts.counts;
  }

  async #baseFor(
    scan: RepositoryScan,
    counts: TokenCounts,
    request: ContextRequest & { readonly reserveTokens: number },
    signal: AbortSignal | undefined,
  ): Promise<BasePlan> {
    const { model, budgetTokens, reserveTokens, scope, choices = {}, ranking = "complete" } = request;
    const key = JSON.stringify({ model, budgetTokens, reserveTokens, scope, choices: Object.entries(choices).sort() });
    const known = this.#base?.key === key && this.#base.scan === scan ? this.#base.plan : undefined;
    if (known !== undefined && (known.isFinal || ranking === "first")) return known;
    const plan = await planBase({ scan, counts, budgetTokens, reserveTokens, scope, choices, ranking }, signal);
    this.#base = { key, scan, plan };
    return plan;
  }
}
