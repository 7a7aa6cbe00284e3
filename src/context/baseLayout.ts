// Owns: the base as the model has read it: its files in the order and with the text they had then, and behind them the deltas,
// which say what became of them since. Works out the cheapest way to the newest texts. Must never change what was read.
import { failure } from "../protocol/errors";
import type { PackedMode } from "./tokenCounts";

/** One file as it stands in the prompt. */
export interface LaidText {
  readonly path: string;
  readonly text: string;
  readonly mode: PackedMode;
}
export interface LaidFile extends LaidText {
  /** The tags and the separator included. */
  readonly tokens: number;
}

/** What a delta says: a file's newest text, that a file is no more, or that it has another path now. */
export type Change<File extends LaidText = LaidFile> =
  /** `replaces`: an earlier text under this path was read. */
  | { readonly change: "text"; readonly file: File; readonly replaces: boolean }
  | { readonly change: "gone"; readonly path: string }
  | { readonly change: "moved"; readonly path: string; readonly to: string };
export type Delta = Change & { readonly tokens: number };

export interface BaseLayout {
  /** It held every file that there was: what it lacks is new. */
  readonly complete: boolean;
  readonly files: readonly LaidFile[];
  /** In the order in which they are read: of two about one file, the later holds. */
  readonly deltas: readonly Delta[];
}

/** A file as the model knows it after the layout, and which pieces of the prompt it has to thank for that. */
export interface KnownFile {
  readonly file: LaidFile;
  /** Names the pieces that are about this file, old copies included. */
  readonly chain: number;
}

export interface Knowledge {
  readonly files: ReadonlyMap<string, KnownFile>;
  /** Of each file of the layout, then of each delta. */
  readonly chains: readonly number[];
}

/** A file of fewer characters is not taken for another one that is gone, because any two may be alike. */
const leastMovedCharacters = 32;
/** About what the words of a delta cost; exact counts come when it is known which deltas there will be. */
const noteTokens = 24;

/** What the model knows after the files and the first `deltas` deltas. */
export function knowledgeOf(layout: BaseLayout, deltas = layout.deltas.length): Knowledge {
  const files = new Map<string, KnownFile>();
  const chains: number[] = [];
  for (const file of layout.files) files.set(file.path, { file, chain: chains.push(chains.length) - 1 });
  for (const delta of layout.deltas.slice(0, deltas)) {
    const path = delta.change === "text" ? delta.file.path : delta.path;
    const chain = files.get(path)?.chain ?? chains.length;
    chains.push(chain);
    apply(files, delta, chain);
  }
  return { files, chains };
}

function apply(files: Map<string, KnownFile>, change: Change, chain: number): void {
  if (change.change === "text") {
    files.set(change.file.path, { file: change.file, chain });
    return;
  }
  const known = files.get(change.path);
  files.delete(change.path);
  if (change.change === "moved" && known !== undefined) {
    files.set(change.to, { file: { ...known.file, path: change.to }, chain });
  }
}

export interface Update {
  /** So many of the deltas that were read stay. */
  readonly kept: number;
  /** What has to be said behind them. */
  readonly changes: readonly Change[];
  /** About how many tokens that is. */
  readonly costTokens: number;
}

/**
 * The cheapest way from what was read to `wanted`: the first deltas stay as they are, and what then still differs is said behind
 * them. So an edit costs its file; editing the file of the last delta again replaces it; an edit taken back makes it vanish.
 */
export function updateTo(layout: BaseLayout, wanted: ReadonlyMap<string, LaidFile>): Update {
  const files = new Map(knowledgeOf(layout, 0).files);
  const open = new Set<string>();
  const look = (path: string): void => {
    if (isSame(files.get(path)?.file, wanted.get(path))) open.delete(path);
    else open.add(path);
  };
  for (const path of files.keys()) look(path);
  for (const path of wanted.keys()) look(path);
  let best: Update | undefined;
  for (let kept = 0; kept <= layout.deltas.length; kept += 1) {
    const delta = layout.deltas[kept - 1];
    if (delta !== undefined) {
      apply(files, delta, 0);
      for (const path of pathsOf(delta)) look(path);
    }
    const changes = changesOf(files, wanted, [...open].sort());
    const costTokens = changes.reduce((total, change) => total + roughTokens(change), 0);
    // Of equals the shorter prompt.
    if (best === undefined || costTokens < best.costTokens) best = { kept, changes, costTokens };
  }
  return best ?? { kept: 0, changes: [], costTokens: 0 };
}

/** By path: a file that moved is told before the rest, so that a newer text under its old path comes after it. */
function changesOf(
  files: ReadonlyMap<string, KnownFile>,
  wanted: ReadonlyMap<string, LaidFile>,
  open: readonly string[],
): Change[] {
  const added = open.filter((path) => wanted.has(path) && !files.has(path));
  const moved: Change[] = [];
  const gone: Change[] = [];
  const found = new Set<string>();
  for (const path of open) {
    const known = files.get(path)?.file;
    if (known === undefined || wanted.has(path)) continue;
    const to = added.find((candidate) => !found.has(candidate) && isMove(known, wanted.get(candidate)));
    if (to === undefined) gone.push({ change: "gone", path });
    else {
      found.add(to);
      moved.push({ change: "moved", path, to });
    }
  }
  const texts: Change[] = [];
  for (const path of open) {
    const file = wanted.get(path);
    if (file !== undefined && !found.has(path)) texts.push({ change: "text", file, replaces: files.has(path) });
  }
  return [...moved, ...gone, ...texts];
}

function isMove(known: LaidFile, candidate: LaidFile | undefined): boolean {
  return known.text.length >= leastMovedCharacters && known.text === candidate?.text && known.mode === candidate.mode;
}

function isSame(known: LaidFile | undefined, wanted: LaidFile | undefined): boolean {
  return known === undefined || wanted === undefined
    ? known === wanted
    : known.text === wanted.text && known.mode === wanted.mode;
}

function pathsOf(change: Change): readonly string[] {
  if (change.change === "text") return [change.file.path];
  return change.change === "moved" ? [change.path, change.to] : [change.path];
}

function roughTokens(change: Change): number {
  return noteTokens + (change.change === "text" ? change.file.tokens : 0);
}

/**
 * A new layout of the newest texts, without deltas. Files stay where they were up to the first that changed or went; behind it
 * those that did not change keep their order, and changed ones come last, so that what changes often stands where it costs least.
 * `fresh`: what a new plan would read. Behind the first change its choice of files holds. Before it files stay, whatever their
 * rank is by now, and where both do not fit into `limitTokens`, what would be new to the layout waits.
 */
export function rebase(
  layout: BaseLayout,
  wanted: ReadonlyMap<string, LaidFile>,
  fresh: Pick<BaseLayout, "files" | "complete">,
  limitTokens: number,
): BaseLayout {
  const isKept = (file: LaidFile): boolean => isSame(file, wanted.get(file.path));
  const firstChange = layout.files.findIndex((file) => !isKept(file));
  const cut = firstChange < 0 ? layout.files.length : firstChange;
  const freshPaths = new Set(fresh.files.map(({ path }) => path));
  const before = layout.files.slice(0, cut);
  const behind = layout.files.slice(cut).filter((file) => isKept(file) && freshPaths.has(file.path));
  const kept = new Set([...before, ...behind].map(({ path }) => path));
  const laid = knowledgeOf(layout).files;
  const rest = fresh.files.filter(({ path }) => !kept.has(path));
  const files = [...before, ...behind, ...rest];
  const newcomers = rest.filter(({ path }) => !laid.has(path));
  const outranked = before.filter(({ path }) => !freshPaths.has(path));
  const given = givenUp([...outranked, ...newcomers].reverse(), tokensOf(files) - limitTokens);
  return { complete: fresh.complete, files: files.filter((file) => !given.has(file)), deltas: [] };
}

/** The first of `files` until there are `excessTokens` fewer. */
function givenUp(files: readonly LaidFile[], excessTokens: number): ReadonlySet<LaidFile> {
  const given = new Set<LaidFile>();
  let excess = excessTokens;
  for (const file of files) {
    if (excess <= 0) break;
    given.add(file);
    excess -= file.tokens;
  }
  return given;
}

/** About how far before a place in the base the nearest state may stand (src/engine/stops.ts). */
const tokensToState = 2_048;

/** About how many tokens of `next` are read when `layout` was: what it has in common with it is restored. */
export function readTokens(layout: BaseLayout, next: BaseLayout): number {
  const differs = next.files.findIndex((file, index) => {
    const other = layout.files[index];
    return other?.path !== file.path || !isSame(file, other);
  });
  const common = differs < 0 ? next.files.length : differs;
  // States are kept at the end of the base and before its last file.
  return tokensOf(next.files.slice(common)) + (common >= layout.files.length - 1 ? 0 : tokensToState);
}

export function tokensOf(items: readonly { readonly tokens: number }[]): number {
  return items.reduce((total, { tokens }) => total + tokens, 0);
}

/** The deltas of an update with what they cost; `counts` in the order of its changes. */
export function updated(layout: BaseLayout, update: Update, counts: readonly number[]): BaseLayout {
  if (counts.length !== update.changes.length) {
    throw failure("internal", "delta", String(update.changes.length), String(counts.length));
  }
  const added = update.changes.map((change, index): Delta => ({ ...change, tokens: counts[index] ?? 0 }));
  return { ...layout, deltas: [...layout.deltas.slice(0, update.kept), ...added] };
}
