// Owns: the plan of one prompt: the base, then what the question needs, never more than the budget, and the account of what is
// in and what is not. Must never leave a file out without saying why.
import type { DropReason, FileChoices, KeepReason, PlannedFile, PlanSummary } from "../protocol/qa";
import { inScope } from "./basePlan";
import { choiceLookup } from "./choices";
import type { ScannedFile } from "./contentCache";
import type { FileFacts } from "./fileFacts";
import { Pace } from "./pace";
import type { RepositoryScan } from "./scan";
import { fileSegment, fileCloseTag, fileOpenTag, fileSeparator, segmentBody } from "./segment";
import type { ContextSegment, PromptSegment } from "./segment";
import { sha256Hex } from "./sha256";
import type { StandingBase } from "./standingBase";
import type { WantedFiles } from "./supplement";
import type { CountedFile, TokenCounts } from "./tokenCounts";
import { windowFit } from "./windowFit";

export interface ContextPlan {
  /**
   * The files that are read, with their newest text: the base, then the supplement, whose last file is the one that the question
   * needs most. Of a file in both, the later holds. Answers are checked against these.
   */
  readonly segments: readonly ContextSegment[];
  /** What stands in the prompt, old copies included: the base as it was read, what became of it since, and the supplement. */
  readonly prompt: readonly PromptSegment[];
  readonly budgetTokens: number;
  /** Every file read or dropped, in that order. Folders end with "/". */
  readonly files: readonly PlannedFile[];
  /** Packed files with characters that are not seen, or that were taken out because they are not. */
  readonly flagged: readonly { readonly path: string; readonly hidden: number; readonly removed: number }[];
  readonly summary: PlanSummary;
  /** SHA-256 of the base as it stands in the prompt. */
  readonly prefixKey: string;
}

export interface PlanRequest {
  readonly scan: RepositoryScan;
  readonly counts: TokenCounts;
  readonly base: StandingBase;
  readonly wanted: WantedFiles;
  /** Paths that the user asked to be read. */
  readonly pinned: readonly string[];
  readonly scope: readonly string[];
  readonly choices?: FileChoices;
  readonly budgetTokens: number;
  /** What is left of the budget after an unusually long question or conversation; at most budgetTokens. */
  readonly availableTokens: number;
  /** At most this much of helpful files. */
  readonly reserveTokens: number;
}

/** Its tokens are those of all copies that stand in the prompt. */
interface Repeated extends CountedFile {
  readonly copies?: number;
}

const filesAtOnce = 1_024;

interface Chosen extends Repeated {
  readonly reason: KeepReason;
}

/** The copies of a file that is read several times take at most so much, and so much of the room. */
const repeatedTokensAtMost = 1_024;
const repeatedShare = 1 / 8;

export async function planContext(request: PlanRequest, signal?: AbortSignal): Promise<ContextPlan> {
  const { scan, counts, base, wanted } = request;
  const availableTokens = request.availableTokens - base.lostTokens;
  const pinned = filesAt(scan, request.pinned);
  const required = unique([...pinned, ...wanted.required]);
  const inBase = new Set(base.files.filter(({ mode }) => mode === "full").map(({ file }) => file));
  const needed = base.files.filter(({ file }) => required.includes(file));
  const asked = required.filter((file) => !inBase.has(file) || base.oldCopies.has(file));
  const counted = await counts.files(scan, asked, signal);
  const limitTokens = Math.min(repeatedTokensAtMost, availableTokens * repeatedShare);
  const copied = counted.map((item) => repeated(item, base.oldCopies.get(item.file) ?? 0, limitTokens));
  const roomTokens = availableTokens - tokensOf(needed);
  const withCopies = fitting(copied, roomTokens);
  // Copies cost no file its place.
  const additions = withCopies.length < counted.length ? fitting(counted, roomTokens) : withCopies;
  const kept = giveUpFromEnd(base.files, availableTokens - tokensOf(additions), new Set(required));
  const left = availableTokens - tokensOf(kept) - tokensOf(additions);
  const packed = new Set([...kept, ...additions].filter(({ mode }) => mode === "full").map(({ file }) => file));
  const helpful = await counts.files(
    scan,
    wanted.helpful.filter((file) => !packed.has(file)),
    signal,
  );
  const extra = fitting(helpful, Math.min(left, request.reserveTokens - tokensOf(additions)));
  const isPinned = new Set(pinned);
  const supplement = [...additions, ...extra]
    .reverse()
    .map((item): Chosen => ({ ...item, reason: isPinned.has(item.file) ? "pinned" : "supplement" }));
  const choiceOf = choiceLookup(request.choices ?? {});
  const ranked = kept.map((item): Chosen => ({ ...item, reason: choiceOf(item.file.path) ? "chosen" : "base" }));
  const segments = await Promise.all([
    ...ranked.map((item) => segment(scan, item, "base")),
    ...supplement.map((item) => segment(scan, item, "supplement")),
  ]);
  const prompt = [
    ...base.prompt(new Set(kept.map(({ file }) => file))),
    ...supplement.flatMap(({ file, text, copies = 1 }) =>
      Array.from({ length: copies }, () => fileSegment("supplement", { path: file.path, text })),
    ),
  ];
  return account(request, segments, prompt, new Pace(signal));
}

/**
 * A model answers from the text of which it has read more copies. So of a file with old ones the newest is read again with the
 * question that needs it, if there is room once oftener than there are old ones.
 */
function repeated(item: CountedFile, oldCopies: number, limitTokens: number): Repeated {
  if (oldCopies === 0) return item;
  const copies = Math.max(1, Math.min(oldCopies + 1, Math.floor(limitTokens / item.tokens)));
  return { ...item, tokens: item.tokens * copies, copies };
}

/** Paths that are not text of this repository any more are passed over. */
function filesAt(scan: RepositoryScan, paths: readonly string[]): ScannedFile[] {
  if (paths.length === 0) return [];
  const wanted = new Set(paths);
  return [...scan.files, ...scan.setAside].filter(({ path }) => wanted.has(path));
}

/** Takes files in order while they fit; one that is too large does not keep out those after it. */
function fitting(files: readonly CountedFile[], roomTokens: number): CountedFile[] {
  let left = roomTokens;
  return files.filter(({ tokens }) => {
    if (tokens > left) return false;
    left -= tokens;
    return true;
  });
}

/** The base as far as there is room: its last files go first, those the question needs stay. */
function giveUpFromEnd(
  files: readonly CountedFile[],
  roomTokens: number,
  needed: ReadonlySet<ScannedFile>,
): readonly CountedFile[] {
  let excess = tokensOf(files) - roomTokens;
  if (excess <= 0) return files;
  const given = new Set<CountedFile>();
  for (const pass of ["unneeded", "any"] as const) {
    for (const item of [...files].reverse()) {
      if (excess <= 0) break;
      if (given.has(item) || (pass === "unneeded" && needed.has(item.file))) continue;
      given.add(item);
      excess -= item.tokens;
    }
  }
  return files.filter((item) => !given.has(item));
}

async function segment(scan: RepositoryScan, item: Chosen, kind: ContextSegment["kind"]): Promise<ContextSegment> {
  const { file, text, tokens, mode, reason } = item;
  const source = mode === "full" ? text : ((await scan.text(file)) ?? text);
  return { file, path: file.path, text, tokens, mode, source, kind, reason };
}

async function account(
  request: PlanRequest,
  segments: readonly ContextSegment[],
  prompt: readonly PromptSegment[],
  pace: Pace,
): Promise<ContextPlan> {
  const { scan, counts, budgetTokens } = request;
  const facts = counts.facts;
  const files = readFiles(segments);
  const read = new Set(files.map(({ path }) => path));
  const droppedFor = dropReasons(request);
  for (const [index, file] of scan.files.entries()) {
    if (index % filesAtOnce === 0) await pace.breathe();
    if (read.has(file.path)) continue;
    files.push({ path: file.path, tokens: counts.known(file), mode: "dropped", reason: droppedFor(file, facts) });
  }
  for (const [index, { path, reason }] of scan.dropped.entries()) {
    if (index % filesAtOnce === 0) await pace.breathe();
    if (read.has(path)) continue;
    const isWanted = request.choices?.[path] === "full" || request.choices?.[path] === "outline";
    const isReadable = isWanted && scan.setAside.some((file) => file.path === path);
    files.push({ path, tokens: 0, mode: "dropped", reason: isReadable ? "over-budget" : reason });
  }
  await pace.breathe();
  const fit = windowFit(files, scan.files, (file) => counts.known(file), budgetTokens);
  await pace.breathe();
  const baseText = prompt
    .filter(({ kind }) => kind === "base")
    .map(({ file }) => (file === null ? "" : fileOpenTag + segmentBody(file.path, file.text) + fileCloseTag))
    .join(fileSeparator);
  return {
    segments,
    prompt,
    budgetTokens,
    files,
    flagged: segments
      .filter(({ file }) => file.hiddenCharacters + file.removedCharacters > 0)
      .map(({ path, file }) => ({ path, hidden: file.hiddenCharacters, removed: file.removedCharacters })),
    summary: {
      budgetTokens,
      readFiles: read.size,
      totalFiles: scan.files.filter((file) => !facts.isSecret(file)).length,
      readTokens: tokensOf(segments) + request.base.lostTokens,
      ...fit,
    },
    prefixKey: await sha256Hex(baseText),
  };
}

/** Once a path, though the outline of a file or an old copy may stand in the base and the whole of it in the supplement. */
function readFiles(segments: readonly ContextSegment[]): PlannedFile[] {
  const byPath = new Map<string, PlannedFile>();
  for (const { path, tokens, mode, reason } of segments) {
    const before = byPath.get(path);
    byPath.set(path, { path, tokens: tokens + (before?.tokens ?? 0), mode, reason });
  }
  return [...byPath.values()];
}

function dropReasons({ scope, choices = {} }: PlanRequest): (file: ScannedFile, facts: FileFacts) => DropReason {
  const choiceOf = choiceLookup(choices);
  return (file, facts) => {
    if (facts.isSecret(file)) return "secret";
    if (choiceOf(file.path) === "out") return "chosen-out";
    return inScope(file.path, scope) ? "over-budget" : "out-of-scope";
  };
}

function tokensOf(items: readonly { readonly tokens: number }[]): number {
  return items.reduce((total, { tokens }) => total + tokens, 0);
}

function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}
