// Owns: the check of an answer against the files as they were packed: each quoted block and each path becomes verified, relocated,
// earlier or not found. Must never call anything found that does not stand there.
import { isFound } from "../protocol/qa";
import type { Citation, CitationStatus } from "../protocol/qa";
import { isSource } from "../context/definitions";
import { looksLikePath, readMarkup } from "./answerMarkup";
import type { AnswerBlock, AnswerPath } from "./answerMarkup";
import { QuoteIndex } from "./quotes";
import type { PackedText, QuotePlace } from "./quotes";

export interface CitationSources {
  readonly repository: string;
  /** The files that the model read, with their newest text. */
  readonly packed: readonly PackedText[];
  /** Earlier texts that it read too: no sources, but a quote that stands only there is told from one that stands nowhere. */
  readonly replaced?: readonly PackedText[];
  /** All paths of the repository that are text, packed or not. */
  readonly known: readonly string[];
}

/** A quote of fewer letters and digits proves a place only where there is no other one like it. */
const substanceCharacters = 8;
const leastCharacters = 3;

interface Place {
  readonly path: string;
  readonly startLine: number;
  readonly endLine: number;
  readonly status: CitationStatus;
  readonly candidates: number;
}
const nowhere: Place = { path: "", startLine: 0, endLine: 0, status: "not-found", candidates: 0 };

/** In the order of the answer. Whether files changed since is for the caller to find out. */
export function checkCitations(answer: string, sources: CitationSources): Citation[] {
  const markup = readMarkup(answer);
  const quotes = new QuoteIndex(sources.packed);
  const earlier = new QuoteIndex(sources.replaced ?? []);
  const names = new PathNames(sources);
  const mentions = markup.paths.filter((path) => names.isMeant(path));
  const naming = new Map<AnswerPath, Place>();
  const found: Omit<Citation, "id">[] = [];
  for (const block of markup.blocks) {
    if (block.lines.every((line) => line.trim() === "")) continue;
    const mention = block.named === "" ? mentions.findLast(({ offset }) => offset < block.offset) : undefined;
    const named = mention?.name ?? block.named;
    const place = placeBlock(block, named, mention?.startLine ?? 0, names, quotes);
    if (mention !== undefined && isBetter(place, naming.get(mention))) naming.set(mention, place);
    const { path } = isFound(place) ? nowhere : placeBlock(block, named, 0, names, earlier);
    const shown: Place = path === "" ? place : { ...nowhere, path, status: "earlier" };
    found.push(citation("block", block, shown, named, names));
  }
  for (const mention of mentions) {
    // A path that introduces a quote stands for the quote's place: a link to the named file would lead to the wrong one.
    const place = naming.get(mention) ?? placePath(mention, names, quotes);
    found.push(citation("path", mention, place, mention.name, names));
  }
  return found.sort((a, b) => a.offset - b.offset).map((item, index) => ({ id: index + 1, ...item }));
}

function citation(
  kind: Citation["kind"],
  { offset, length }: { readonly offset: number; readonly length: number },
  place: Place,
  named: string,
  names: PathNames,
): Omit<Citation, "id"> {
  const agrees = place.path !== "" && names.resolve(named).includes(place.path);
  return { kind, ...place, namedPath: agrees ? "" : named, stale: false, offset, length };
}

/** Of several quotes under one path, the best found says where the path leads; a quote that is nowhere says nothing about it. */
function isBetter(place: Place, known: Place | undefined): boolean {
  if (!isFound(place)) return false;
  return known === undefined || (known.status === "relocated" && place.status === "verified");
}

function placeBlock(block: AnswerBlock, named: string, nearLine: number, names: PathNames, quotes: QuoteIndex): Place {
  const whole = quotes.find(block.lines);
  const places = whole.length > 0 ? whole : quotes.findElided(block.lines);
  const characters = block.lines.join("").match(/[\p{L}\p{N}_]/gu)?.length ?? 0;
  const proves = characters >= substanceCharacters || (characters >= leastCharacters && places.length === 1);
  if (!proves) return nowhere;
  const meant = names.resolve(named);
  const inNamed = places.filter(({ path }) => meant.includes(path));
  const best = inNamed.length > 0 ? nearestLine(inNamed, nearLine) : fewestSteps(places, meant[0] ?? named);
  if (best === undefined) return nowhere;
  const status = inNamed.length > 0 || named === "" ? "verified" : "relocated";
  return { ...best, status, candidates: places.length };
}

function placePath(mention: AnswerPath, names: PathNames, quotes: QuoteIndex): Place {
  const paths = names.resolve(mention.name);
  const path = paths[0];
  if (path === undefined) return nowhere;
  const lines = quotes.lineCount(path);
  const hasLines = mention.startLine >= 1 && mention.endLine <= lines;
  const { startLine, endLine } = hasLines ? mention : nowhere;
  return { path, startLine, endLine, status: "verified", candidates: paths.length };
}

function nearestLine(places: readonly QuotePlace[], line: number): QuotePlace | undefined {
  const distance = (place: QuotePlace): number => (line === 0 ? 0 : Math.abs(place.startLine - line));
  return places.reduce((best, place) => (distance(place) < distance(best) ? place : best), places[0] as QuotePlace);
}

function fewestSteps(places: readonly QuotePlace[], from: string): QuotePlace | undefined {
  let best: QuotePlace | undefined;
  for (const place of places) {
    if (best === undefined || pathSteps(from, place.path) < pathSteps(from, best.path)) best = place;
  }
  return best;
}

/** Folders up from one path to the common folder and down to the other. */
export function pathSteps(from: string, to: string): number {
  const a = from.split("/");
  const b = to.split("/");
  let common = 0;
  while (common < a.length && common < b.length && a[common] === b[common]) common++;
  return a.length - common + (b.length - common);
}

/** What a written name means: a path of the repository, or the end of one. */
class PathNames {
  /** All paths by the file's name, packed ones first: an answer with many names must not walk a large repository for each. */
  readonly #byFileName = new Map<string, string[]>();
  readonly #repository: string;

  constructor({ packed, known, repository }: CitationSources) {
    const read = new Set(packed.map(({ path }) => path));
    for (const path of read) this.#add(path);
    for (const path of known) if (!read.has(path)) this.#add(path);
    this.#repository = repository;
  }

  /** All files that the name may mean: exactly named ones alone, else packed ones before the rest. */
  resolve(name: string): readonly string[] {
    const plain = name.replace(/^(?:\.\/|\/)+/, "");
    const inside = plain.startsWith(`${this.#repository}/`) ? plain.slice(this.#repository.length + 1) : plain;
    const candidates = this.#named(plain);
    const exact = candidates.filter((path) => path === plain || path === inside);
    return exact.length > 0 ? exact : candidates.filter((path) => path.endsWith(`/${inside}`));
  }

  /** Whether the answer means a file by it: it names one, or it could be nothing else. */
  isMeant({ name, marked }: AnswerPath): boolean {
    if (!looksLikePath(name)) return marked && this.#named(name).includes(name);
    if (this.resolve(name).length > 0) return true;
    return name.includes("/") ? isSource(name) || marked : marked && isSource(name);
  }

  #add(path: string): void {
    const same = this.#named(path);
    if (same.length === 0) this.#byFileName.set(fileNameOf(path), [path]);
    else same.push(path);
  }

  /** The paths whose last part is that of `name`. */
  #named(name: string): string[] {
    return this.#byFileName.get(fileNameOf(name)) ?? [];
  }
}

function fileNameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
