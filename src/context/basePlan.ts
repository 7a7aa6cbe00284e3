// Owns: the files that are read for every question, and which of them as outlines. Depends on the repository, the model, the scope
// and the user's choices alone, so that the state after them can be kept between questions. Must never look at a question, a
// clock or a path of the machine.
import type { FileChoices } from "../protocol/qa";
import { choiceLookup } from "./choices";
import type { ScannedFile } from "./contentCache";
import { isSource } from "./definitions";
import { Pace } from "./pace";
import { inPromptOrder } from "./promptOrder";
import { costStep, fileValues, overheadBytes } from "./rank";
import type { RepositoryScan } from "./scan";
import type { CountedFile, PackedMode, TokenCounts } from "./tokenCounts";

/** "complete": by all that files say of one another. "first": without waiting for it where much is not known yet. */
export type Ranking = "complete" | "first";

export interface BaseRequest {
  readonly scan: RepositoryScan;
  readonly counts: TokenCounts;
  /** Room for all files of a prompt. */
  readonly budgetTokens: number;
  /** Part of it that stays free for files a question names, unless the whole repository fits. */
  readonly reserveTokens: number;
  /** Folders to read; empty: all. */
  readonly scope: readonly string[];
  readonly choices?: FileChoices;
  /** Without it, "complete". */
  readonly ranking?: Ranking;
}

export interface BasePlan {
  /** In prompt order. */
  readonly files: readonly CountedFile[];
  readonly tokens: number;
  /** Whether the order of reading rests on all that files say of one another; true where everything fits. */
  readonly isFinal: boolean;
}

const countedAtOnce = 32;
/** No text has fewer tokens than its bytes by this; larger files are passed over uncounted. */
const bytesPerTokenAtMost = 12;
/** When this many files in a row did not fit, the rest is not tried. */
const missesAtMost = 64;

export function inScope(path: string, scope: readonly string[]): boolean {
  return (
    scope.length === 0 || scope.some((folder) => folder === "" || path === folder || path.startsWith(`${folder}/`))
  );
}

export async function planBase(request: BaseRequest, signal?: AbortSignal): Promise<BasePlan> {
  const { scan, budgetTokens, reserveTokens, scope, choices = {} } = request;
  const choiceOf = choiceLookup(choices);
  const chosen: Record<PackedMode, ScannedFile[]> = { full: [], outline: [] };
  const automatic: ScannedFile[] = [];
  const pace = new Pace(signal);
  for (const [index, file] of scan.files.entries()) {
    if (index % 256 === 0) await pace.breathe();
    if (!inScope(file.path, scope)) continue;
    const choice = choiceOf(file.path);
    if (choice === undefined) automatic.push(file);
    else if (choice !== "out") chosen[choice].push(file);
  }
  for (const file of scan.setAside) {
    // A folder's choice means its readable files; only a choice of its own takes in what was set aside for its form.
    const choice = choices[file.path];
    if (choice === "full" || choice === "outline") chosen[choice].push(file);
  }
  const filler = new Filler(request, signal);
  const whole = await filler.whole(chosen, automatic, budgetTokens);
  if (whole !== null) return finished(whole, scan, true);
  const { files, isFinal } = await filler.byWorth(chosen, automatic, budgetTokens - reserveTokens);
  return finished(files, scan, isFinal);
}

function finished(files: readonly CountedFile[], scan: RepositoryScan, isFinal: boolean): BasePlan {
  const tokens = files.reduce((sum, item) => sum + item.tokens, 0);
  return { files: inPromptOrder(files, scan.history), tokens, isFinal };
}

/** What reading a file in one form brings for what it costs. */
interface Offer {
  readonly file: ScannedFile;
  readonly mode: PackedMode;
}

/** Share of a file's worth that its outline carries. */
const outlineWorth = 0.5;
/** An outline that saves less than this is not made. */
const outlineShareAtMost = 0.6;
/** After a save so little is unknown that it is learned first: else all files would be ranked as if nothing were known of them. */
const quicklyLearnedBytes = 256 * 1024;
const quicklyLearnedShare = 1 / 8;
/** What is assumed of an outline before the file was parsed. */
const usualOutlineShare = 0.25;

class Filler {
  readonly #pace: Pace;

  constructor(
    private readonly request: BaseRequest,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#pace = new Pace(signal);
  }

  /** Every file as chosen, the automatic ones in full; null when that is too much. */
  async whole(
    chosen: Readonly<Record<PackedMode, readonly ScannedFile[]>>,
    automatic: readonly ScannedFile[],
    limitTokens: number,
  ): Promise<CountedFile[] | null> {
    const whole = [...chosen.full, ...automatic];
    if (bytesOf(whole) / bytesPerTokenAtMost > limitTokens) return null;
    const files: CountedFile[] = [];
    let left = limitTokens;
    for (const [mode, wanted] of [["full", whole] as const, ["outline", chosen.outline] as const]) {
      for (let start = 0; start < wanted.length; start += countedAtOnce) {
        const counted = await this.#count(mode, wanted.slice(start, start + countedAtOnce));
        left -= counted.reduce((sum, { tokens }) => sum + tokens, 0);
        if (left < 0) return null;
        files.push(...counted);
      }
    }
    return files;
  }

  /** The user's choices first, then what is worth most for its cost, until nothing more fits. */
  async byWorth(
    chosen: Readonly<Record<PackedMode, readonly ScannedFile[]>>,
    automatic: readonly ScannedFile[],
    limitTokens: number,
  ): Promise<{ files: readonly CountedFile[]; isFinal: boolean }> {
    const taken = new Map<ScannedFile, CountedFile>();
    let left = limitTokens;
    for (const mode of ["full", "outline"] as const) {
      left = await this.#take(
        chosen[mode].map((file) => ({ file, mode })),
        left,
        taken,
      );
    }
    const { offers, isFinal } = await this.#offers(automatic);
    await this.#take(offers, left, taken);
    return { files: [...taken.values()], isFinal };
  }

  /** Takes offers in order while they fit; a file in full takes the place of its outline. Returns what is left. */
  async #take(offers: readonly Offer[], limitTokens: number, taken: Map<ScannedFile, CountedFile>): Promise<number> {
    let left = limitTokens;
    let misses = 0;
    for (let start = 0; start < offers.length && misses < missesAtMost && left > 0; start += countedAtOnce) {
      await this.#pace.breathe();
      const batch = offers.slice(start, start + countedAtOnce);
      const counted = await this.#countOffers(batch, left);
      for (const { file, mode } of batch) {
        const item = counted[mode].get(file);
        const before = taken.get(file)?.tokens ?? 0;
        if (item === undefined || item.tokens - before > left) {
          misses++;
          continue;
        }
        misses = 0;
        left -= item.tokens - before;
        taken.set(file, item);
      }
    }
    return left;
  }

  async #countOffers(
    batch: readonly Offer[],
    left: number,
  ): Promise<Record<PackedMode, ReadonlyMap<ScannedFile, CountedFile>>> {
    const count = async (mode: PackedMode): Promise<ReadonlyMap<ScannedFile, CountedFile>> => {
      const files = batch.filter((offer) => offer.mode === mode).map(({ file }) => file);
      // An outline or a file whose outline was taken may still fit where the whole would not.
      const plausible = files.filter((file) => mode === "outline" || file.bytes / bytesPerTokenAtMost <= 2 * left);
      return new Map((await this.#count(mode, plausible)).map((item) => [item.file, item]));
    };
    return { full: await count("full"), outline: await count("outline") };
  }

  /** Each file in each form it can take, by worth for the cost. */
  async #offers(files: readonly ScannedFile[]): Promise<{ offers: readonly Offer[]; isFinal: boolean }> {
    const { scan, counts, ranking = "complete" } = this.request;
    const { facts } = counts;
    const isParsed = await facts.chooseParsed(files, this.#pace);
    const unknown = await facts.unlearned(files, isParsed, this.#pace);
    const isQuick = bytesOf(unknown) <= Math.min(quicklyLearnedBytes, bytesOf(files) * quicklyLearnedShare);
    const learns = ranking === "complete" || isQuick;
    if (learns) await facts.learn(scan, unknown, { isParsed, signal: this.signal });
    const isFinal = unknown.length === 0 || (await facts.unlearned(unknown, isParsed, this.#pace)).length === 0;
    // What is unknown after the learning changed or went away meanwhile: it has no names, and moves no other file.
    const isKnown = learns || isFinal;
    const values = await fileValues(files, isKnown ? facts : null, scan.history, this.#pace);
    const byStep = new Map<number, Offer[]>();
    const offer = (file: ScannedFile, mode: PackedMode, value: number, bytes: number): void => {
      const step = costStep(bytes, value);
      const same = byStep.get(step);
      if (same === undefined) byStep.set(step, [{ file, mode }]);
      else same.push({ file, mode });
    };
    for (const [index, file] of files.entries()) {
      if (index % 256 === 0) await this.#pace.breathe();
      const value = values[index] ?? 0;
      const outline = isKnown ? (facts.names(file)?.outlineCharacters ?? 0) : usualOutline(file);
      if (outline > 0 && outline <= file.bytes * outlineShareAtMost) {
        offer(file, "outline", value * outlineWorth, outline);
        // Always behind the outline, which brings as much for less.
        offer(file, "full", value * (1 - outlineWorth), Math.max(file.bytes - outline, outline + overheadBytes));
      } else {
        offer(file, "full", value, file.bytes);
      }
    }
    const steps = [...byStep].sort(([a], [b]) => a - b);
    return { offers: steps.flatMap(([, same]) => same), isFinal };
  }

  async #count(mode: PackedMode, files: readonly ScannedFile[]): Promise<CountedFile[]> {
    const { scan, counts } = this.request;
    if (files.length === 0) return [];
    return mode === "full" ? counts.files(scan, files, this.signal) : counts.outlines(scan, files, this.signal);
  }
}

function bytesOf(files: readonly ScannedFile[]): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

function usualOutline(file: ScannedFile): number {
  return isSource(file.path) ? Math.round(file.bytes * usualOutlineShare) : 0;
}
