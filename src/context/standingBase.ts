// Owns: which base stands in the prompt from question to question: the layout that was read with its deltas, or a rebase of it.
// Must never drift: a file of the layout changes its text or its place by a delta or a rebase, and by nothing else.
import { knowledgeOf, readTokens, rebase, tokensOf, updated, updateTo } from "./baseLayout";
import type { BaseLayout, Change, Knowledge, LaidFile, LaidText } from "./baseLayout";
import { inScope } from "./basePlan";
import type { BasePlan } from "./basePlan";
import type { ScannedFile } from "./contentCache";
import { encodeLayout, parseLayout } from "./layoutFile";
import type { LayoutStore } from "./layoutStore";
import type { RepositoryScan } from "./scan";
import { deltaSegment, fileSegment } from "./segment";
import type { PromptSegment } from "./segment";
import { sha256Hex } from "./sha256";
import type { CountedFile, TokenCounts } from "./tokenCounts";

/** Deltas take at most this share of the budget; every old copy is also one more that the model may answer from. */
const deltaShare = 1 / 8;
const deltasAtMost = 24;
/** Of the room that is kept for what a question needs, deltas may take so much. */
const reserveShare = 1 / 2;
/** At an idle moment a plan of which this share is not in the layout takes its place. */
const driftShare = 1 / 8;
/** Kept in memory, for other scopes and choices. */
const layoutsAtMost = 4;

export interface StandingRequest {
  readonly scan: RepositoryScan;
  readonly counts: TokenCounts;
  /** What would be read if nothing had been. */
  readonly fresh: BasePlan;
  readonly model: string;
  /** Names everything besides model and texts that the base depends on. */
  readonly key: string;
  readonly scope: readonly string[];
  readonly budgetTokens: number;
  readonly reserveTokens: number;
  /** The moment is idle: the newest texts take the place of the deltas. */
  readonly rebase: boolean;
}

interface Held {
  readonly name: string;
  readonly model: string;
  readonly layout: BaseLayout;
  readonly knowledge: Knowledge;
}

/** What the files of a layout should be now. */
interface Wanted {
  readonly files: ReadonlyMap<string, LaidFile>;
  /** A file may not be read any more: its old copy must not stay either. */
  readonly mustRebase: boolean;
}

export class StandingBases {
  readonly #store: LayoutStore | undefined;
  /** What the model has read, by name, the last used one last. What was planned and not read binds nobody. */
  readonly #read = new Map<string, Held>();
  /** As of the last update: for which layout, and the newest texts of its files. */
  #newest: { readonly name: string; readonly files: ReadonlyMap<string, LaidFile> } | undefined;
  #lastScan: RepositoryScan | undefined;

  constructor(store: LayoutStore | undefined) {
    this.#store = store;
  }

  /** Files that the model has read and that were changed since, as of the last update. */
  get stale(): readonly string[] {
    if (this.#newest === undefined) return [];
    return staleIn(this.#read.get(this.#newest.name)?.knowledge, this.#newest.files);
  }

  async update(request: StandingRequest, signal?: AbortSignal): Promise<StandingBase> {
    const { scan, model, key, fresh } = request;
    const name = await sha256Hex(JSON.stringify([scan.name, model, key]));
    const read = this.#read.get(name) ?? (await this.#restored(name, request, signal));
    const wanted = await this.#wanted(read?.layout, request, signal);
    const layout = read === undefined ? this.#begun(request, wanted) : await next(read.layout, wanted, request, signal);
    const held = read?.layout === layout ? read : { name, model, layout, knowledge: knowledgeOf(layout) };
    const files = new Map(wanted.files);
    for (const [path, { file }] of held.knowledge.files) files.set(path, file);
    this.#newest = { name, files };
    this.#lastScan = scan;
    return new StandingBase(held, sourcesOf(scan, fresh, held.knowledge));
  }

  /** The model has read this base. Resolves when that is kept for the next process, too. */
  async markRead({ held }: StandingBase): Promise<void> {
    const before = this.#read.get(held.name);
    this.#hold(held);
    if (before?.layout !== held.layout) await this.#store?.save(held.name, encodeLayout(held.layout));
  }

  #hold(held: Held): void {
    this.#read.delete(held.name);
    this.#read.set(held.name, held);
    for (const oldest of this.#read.keys()) {
      if (this.#read.size <= layoutsAtMost) break;
      this.#read.delete(oldest);
    }
  }

  /** Of this model's other layouts the last used one has most in common with a new one. */
  #begun(request: StandingRequest, { files }: Wanted): BaseLayout {
    const fresh = freshLayout(request);
    const other = [...this.#read.values()].findLast(({ model }) => model === request.model);
    return other === undefined ? fresh : rebase(other.layout, files, fresh, fresh.tokens);
  }

  async #restored(name: string, { counts, model }: StandingRequest, signal?: AbortSignal): Promise<Held | undefined> {
    const content = await this.#store?.load(name);
    const kept = content === undefined ? undefined : parseLayout(content);
    if (kept === undefined) return undefined;
    const texts: LaidText[] = [...kept.files];
    for (const change of kept.changes) if (change.change === "text") texts.push(change.file);
    const tokens = await counts.copies(texts, signal);
    let at = 0;
    const counted = (file: LaidText): LaidFile => ({ ...file, tokens: tokens[at++] ?? 0 });
    const files = kept.files.map(counted);
    const changes = kept.changes.map((change): Change =>
      change.change === "text" ? { ...change, file: counted(change.file) } : change,
    );
    const bare: BaseLayout = { complete: kept.complete, files, deltas: [] };
    const layout = updated(bare, { kept: 0, changes, costTokens: 0 }, await deltaTokens(changes, counts, signal));
    const held = { name, model, layout, knowledge: knowledgeOf(layout) };
    this.#hold(held);
    return held;
  }

  /** A file keeps the form in which it was read: which form a new plan would choose changes with every edit. */
  async #wanted(layout: BaseLayout | undefined, request: StandingRequest, signal?: AbortSignal): Promise<Wanted> {
    const fresh = new Map(freshFiles(request).map((file) => [file.path, file]));
    if (layout === undefined) return { files: fresh, mustRebase: false };
    const known = knowledgeOf(layout).files;
    const files = new Map<string, LaidFile>();
    const unplanned = new Set<string>();
    for (const [path, { file }] of known) {
      const planned = fresh.get(path);
      if (planned?.mode === file.mode) files.set(path, planned);
      else unplanned.add(path);
    }
    const { scan, counts, scope } = request;
    const offered = scan.files.filter(({ path }) => unplanned.has(path) && inScope(path, scope));
    const outlined = offered.filter(({ path }) => known.get(path)?.file.mode === "outline");
    const whole = offered.filter(({ path }) => known.get(path)?.file.mode === "full");
    const counted = [...(await counts.files(scan, whole, signal)), ...(await counts.outlines(scan, outlined, signal))];
    for (const item of counted) {
      files.set(item.file.path, laidFile(item));
      unplanned.delete(item.file.path);
    }
    for (const path of this.#added(layout, known, fresh)) files.set(path, fresh.get(path) as LaidFile);
    // It is there, and cannot be read, or not in that form: for what it holds now, or because the user said so.
    const isThere = (path: string): boolean => offered.some((file) => file.path === path) || isLeftOut(path, scan);
    return { files, mustRebase: [...unplanned].some(isThere) };
  }

  /** New files. Others that a new plan would read wait for a rebase. */
  #added(layout: BaseLayout, known: Knowledge["files"], fresh: ReadonlyMap<string, LaidFile>): Iterable<string> {
    const added = new Set([...fresh.keys()].filter((path) => !known.has(path)));
    if (layout.complete || added.size === 0) return added;
    if (this.#lastScan === undefined) return [];
    for (const { path } of this.#lastScan.files) added.delete(path);
    return added;
  }
}

/** The base of one prompt. */
export class StandingBase {
  /** With their newest texts, in the order of their first copies; a file's tokens are those of all its copies. */
  readonly files: readonly CountedFile[];
  /** Of how many files there are old copies in the prompt, or copies under an old path, and how many. */
  readonly oldCopies: ReadonlyMap<ScannedFile, number>;
  /** Of copies of files that are no more, and of the words that say so. */
  readonly lostTokens: number;

  constructor(
    /** For {@link StandingBases.markRead}. */
    readonly held: Held,
    sources: ReadonlyMap<string, ScannedFile>,
  ) {
    const { layout, knowledge } = held;
    const tokens = new Map<number, number>();
    const replaced = new Map<number, number>();
    for (const [index, piece] of [...layout.files, ...layout.deltas].entries()) {
      const chain = knowledge.chains[index] ?? -1;
      tokens.set(chain, (tokens.get(chain) ?? 0) + piece.tokens);
      if ("change" in piece && (piece.change === "moved" || (piece.change === "text" && piece.replaces)))
        replaced.set(chain, (replaced.get(chain) ?? 0) + 1);
    }
    const files = [...knowledge.files].map(([path, { file, chain }]) => ({ ...file, path, chain }));
    files.sort((a, b) => a.chain - b.chain);
    const oldCopies = new Map<ScannedFile, number>();
    this.files = files.flatMap(({ path, text, mode, chain }) => {
      const file = sources.get(path);
      if (file === undefined) return [];
      const old = replaced.get(chain);
      if (old !== undefined) oldCopies.set(file, old);
      return [{ file, text, mode, tokens: tokens.get(chain) ?? 0 }];
    });
    this.oldCopies = oldCopies;
    this.lostTokens = tokensOf([...layout.files, ...layout.deltas]) - tokensOf(this.files);
  }

  /** The layout and its deltas as far as they are about these files; about what is lost, always. */
  prompt(files: ReadonlySet<ScannedFile>): PromptSegment[] {
    const { layout, knowledge } = this.held;
    const left = new Set<number>();
    for (const { file } of this.files) {
      const known = knowledge.files.get(file.path);
      if (known !== undefined && !files.has(file)) left.add(known.chain);
    }
    const isIn = (index: number): boolean => !left.has(knowledge.chains[index] ?? -1);
    const { length } = layout.files;
    return [
      ...layout.files.filter((_, index) => isIn(index)).map((file) => fileSegment("base", file)),
      ...layout.deltas.filter((_, index) => isIn(length + index)).map(deltaSegment),
    ];
  }
}

async function next(
  layout: BaseLayout,
  wanted: Wanted,
  request: StandingRequest,
  signal: AbortSignal | undefined,
): Promise<BaseLayout> {
  const { counts, budgetTokens, reserveTokens } = request;
  const fresh = freshLayout(request);
  const rebased = rebase(layout, wanted.files, fresh, Math.max(fresh.tokens, budgetTokens - reserveTokens));
  const update = updateTo(layout, wanted.files);
  const isCurrent = update.changes.length === 0 && update.kept === layout.deltas.length;
  if (isCurrent && !request.rebase) return layout;
  if (isCurrent && layout.deltas.length === 0) return hasDrifted(layout, fresh) ? replan(layout, fresh) : layout;
  // Where what stands behind the edit is no more than the edit itself, there is no use for a second copy.
  const isCheaper = readTokens(layout, rebased) <= update.costTokens;
  if (request.rebase || wanted.mustRebase || isCheaper) return rebased;
  const grown = updated(layout, update, await deltaTokens(update.changes, counts, signal));
  const limitTokens = fresh.complete ? budgetTokens : budgetTokens - Math.ceil(reserveTokens * (1 - reserveShare));
  const isTooMuch =
    grown.deltas.length > deltasAtMost ||
    tokensOf(grown.deltas) > budgetTokens * deltaShare ||
    tokensOf(grown.files) + tokensOf(grown.deltas) > limitTokens;
  return isTooMuch ? rebased : grown;
}

/** The plan that would be made if nothing had been read, in an order that keeps what it can of what was. */
function replan(layout: BaseLayout, fresh: FreshLayout): BaseLayout {
  return rebase(layout, new Map(fresh.files.map((file) => [file.path, file])), fresh, fresh.tokens);
}

function hasDrifted(layout: BaseLayout, fresh: FreshLayout): boolean {
  const laid = new Map(layout.files.map((file) => [file.path, file.mode]));
  const missing = fresh.files.filter(({ path, mode }) => laid.get(path) !== mode);
  return tokensOf(missing) > fresh.tokens * driftShare;
}

interface FreshLayout extends BaseLayout {
  readonly tokens: number;
}

function freshLayout(request: StandingRequest): FreshLayout {
  const { scan, counts, fresh, scope } = request;
  const planned = new Set(fresh.files.map(({ file }) => file));
  const complete = scan.files.every(
    (file) => planned.has(file) || !inScope(file.path, scope) || counts.facts.isSecret(file),
  );
  return { complete, files: freshFiles(request), deltas: [], tokens: fresh.tokens };
}

function freshFiles({ fresh }: StandingRequest): LaidFile[] {
  return fresh.files.map(laidFile);
}

function laidFile({ file, text, mode, tokens }: CountedFile): LaidFile {
  return { path: file.path, text, mode, tokens };
}

async function deltaTokens(
  changes: readonly Change[],
  counts: TokenCounts,
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const notes = await counts.texts(
    changes.map((change) => deltaSegment(change).note),
    signal,
  );
  return changes.map((change, index) => (notes[index] ?? 0) + (change.change === "text" ? change.file.tokens : 0));
}

/** Whether a file that is not offered any more is there all the same: ignored now, secret, or of a form that is not read. */
function isLeftOut(path: string, { dropped }: RepositoryScan): boolean {
  return dropped.some(({ path: left }) => (left.endsWith("/") ? path.startsWith(left) : path === left));
}

function sourcesOf(scan: RepositoryScan, fresh: BasePlan, { files }: Knowledge): Map<string, ScannedFile> {
  const sources = new Map(fresh.files.map(({ file }) => [file.path, file]));
  for (const file of scan.files) if (files.has(file.path)) sources.set(file.path, file);
  return sources;
}

function staleIn(read: Knowledge | undefined, newest: ReadonlyMap<string, LaidFile>): string[] {
  if (read === undefined) return [];
  return [...read.files].flatMap(([path, { file }]) => (newest.get(path)?.text === file.text ? [] : [path])).sort();
}
