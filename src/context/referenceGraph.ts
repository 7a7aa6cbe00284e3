// Owns: how much the files of a repository lean on one another: a rank over "uses a name that the other defines". Must depend on
// names alone, so that the same repository always gives the same numbers, whatever was ranked before.
import type { FileNames } from "./fileFacts";
import type { Pace } from "./pace";

/** A name that more files define says nothing about any of them. */
const definersAtMost = 8;
const rounds = 12;
/** Share of a file's rank that it passes on; the rest is spread by `weights`. */
const damping = 0.85;
const filesAtOnce = 64;
const namesAtOnce = 1 << 15;

/** The files that a file leans on: those of file i from starts[i] to starts[i + 1]. */
interface Edges {
  readonly starts: Uint32Array;
  readonly targets: Uint32Array;
  /** Those of one file add up to 1. */
  readonly shares: Float64Array;
}

/** Which files define each name: those of name i from starts[i] to starts[i + 1]. */
interface Definers {
  readonly starts: Uint32Array;
  readonly files: Uint32Array;
}

interface Graph {
  readonly names: readonly FileNames[];
  readonly definers: Definers;
  /** How many files use each name. */
  readonly users: Uint32Array;
  /** The logarithm of how few of the files use a name. */
  readonly rarity: Float64Array;
  readonly edges: Edges;
}

export class ReferenceRanks {
  #graph: Graph | undefined;
  #ranked: { readonly weights: Float64Array; readonly ranks: Float64Array } | undefined;

  /**
   * PageRank: a file's uses pass its rank on to the files that define what it uses, rare names more than common ones. A mean file
   * has 1. `weights` says how much a file's own voice counts. Names are numbers below `nameCount`; a file whose names are the same
   * object as the last time, and what it uses is defined and used by as many files, costs next to nothing.
   */
  async rank(files: readonly FileNames[], weights: Float64Array, nameCount: number, pace: Pace): Promise<Float64Array> {
    const known = this.#graph;
    const isSameGraph = known?.names.length === files.length && files.every((names, i) => names === known.names[i]);
    const ranked = this.#ranked;
    if (isSameGraph && ranked !== undefined && isSameNumbers(ranked.weights, weights)) return ranked.ranks;
    const graph = isSameGraph ? known : await graphOf(files, nameCount, known, pace);
    const ranks = await ranksIn(graph, weights, pace);
    this.#graph = graph;
    this.#ranked = { weights, ranks };
    return ranks;
  }
}

async function ranksIn({ names, edges }: Graph, weights: Float64Array, pace: Pace): Promise<Float64Array> {
  const count = names.length;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (count === 0 || total === 0) return new Float64Array(count);
  const own = weights.map((weight) => (weight * count) / total);
  let ranks = own.slice();
  const { starts, targets, shares } = edges;
  for (let round = 0; round < rounds; round++) {
    await pace.breathe();
    const next = new Float64Array(count);
    let unlinked = 0;
    for (let file = 0; file < count; file++) {
      const rank = ranks[file] ?? 0;
      const end = starts[file + 1] ?? 0;
      let edge = starts[file] ?? 0;
      if (edge === end) unlinked += rank;
      for (; edge < end; edge++) {
        const target = targets[edge] ?? 0;
        next[target] = (next[target] ?? 0) + rank * (shares[edge] ?? 0);
      }
    }
    // Files that use nothing give their rank back to all.
    ranks = next.map((value, file) => {
      const voice = own[file] ?? 0;
      return (1 - damping) * voice + damping * (value + (unlinked * voice) / count);
    });
  }
  return ranks;
}

/** `before`: of any earlier state of the same repository. What is taken over from it is what would be worked out again. */
async function graphOf(
  files: readonly FileNames[],
  nameCount: number,
  before: Graph | undefined,
  pace: Pace,
): Promise<Graph> {
  // A file that came or went moves the numbers of the others, and makes every name rarer or less rare.
  const known = before?.names.length === files.length ? before : undefined;
  if (known === undefined) {
    const definers = await listDefiners(files, nameCount, pace);
    const users = await countUsers(files, nameCount, pace);
    const rarity = new Float64Array(nameCount);
    for (let name = 0; name < nameCount; name++) {
      if (name % namesAtOnce === 0) await pace.breathe();
      rarity[name] = rarityOf(users[name] ?? 0, files.length);
    }
    const edges = await drawEdges(files, { definers, rarity }, undefined, pace);
    return { names: files, definers, users, rarity, edges };
  }
  const changed = [...files.keys()].filter((file) => files[file] !== known.names[file]);
  const isDefinedElsewhere = changed.some(
    (file) => !isSameNumbers(namesAt(files, file).defined, namesAt(known.names, file).defined),
  );
  const definers = isDefinedElsewhere ? await listDefiners(files, nameCount, pace) : known.definers;
  const users = longer(known.users, new Uint32Array(nameCount));
  const rarity = longer(known.rarity, new Float64Array(nameCount));
  for (const [index, file] of changed.entries()) {
    if (index % filesAtOnce === 0) await pace.breathe();
    for (const name of namesAt(known.names, file).used) users[name] = (users[name] ?? 0) - 1;
    for (const name of namesAt(files, file).used) users[name] = (users[name] ?? 0) + 1;
  }
  const isOther = isDefinedElsewhere
    ? await otherDefined(definers, known.definers, nameCount, pace)
    : new Uint8Array(nameCount);
  for (const [index, file] of changed.entries()) {
    if (index % filesAtOnce === 0) await pace.breathe();
    for (const { used } of [namesAt(known.names, file), namesAt(files, file)]) {
      for (const name of used) {
        if (users[name] !== known.users[name] && pullsAnything(name, definers)) isOther[name] = 1;
        rarity[name] = rarityOf(users[name] ?? 0, files.length);
      }
    }
  }
  const edges = await drawEdges(files, { definers, rarity }, { graph: known, isOther }, pace);
  return { names: files, definers, users, rarity, edges };
}

function namesAt(files: readonly FileNames[], file: number): FileNames {
  return files[file] as FileNames;
}

function longer<T extends Uint32Array | Float64Array>(values: T, room: T): T {
  room.set(values.subarray(0, room.length));
  return room;
}

/** The logarithm of how few of the files use a name. */
function rarityOf(users: number, fileCount: number): number {
  return Math.log(1 + fileCount / (1 + users));
}

function pullsAnything(name: number, { starts }: Definers): boolean {
  const count = (starts[name + 1] ?? 0) - (starts[name] ?? 0);
  return count > 0 && count <= definersAtMost;
}

/** Those of a file whose names are the same, none of which pulls in another way, are those of before. */
async function drawEdges(
  files: readonly FileNames[],
  names: Pick<Graph, "definers" | "rarity">,
  before: { readonly graph: Graph; readonly isOther: Uint8Array } | undefined,
  pace: Pace,
): Promise<Edges> {
  const drawing = new EdgeDrawing(files.length, names, before?.graph.edges);
  for (const [file, of] of files.entries()) {
    if (file % filesAtOnce === 0) await pace.breathe();
    if (before?.graph.names[file] === of && !usesAny(of, before.isOther)) drawing.keep(file);
    else drawing.draw(file, of);
  }
  return drawing.edges();
}

class EdgeDrawing {
  /** Zeros, but while the edges of one file are drawn. */
  readonly #pulls: Float64Array;
  readonly #starts: Uint32Array;
  #targets: Uint32Array;
  #shares: Float64Array;
  #count = 0;

  constructor(
    fileCount: number,
    private readonly names: Pick<Graph, "definers" | "rarity">,
    private readonly before: Edges | undefined,
  ) {
    this.#pulls = new Float64Array(fileCount);
    this.#starts = new Uint32Array(fileCount + 1);
    const room = (before?.targets.length ?? 0) + 1_024;
    this.#targets = new Uint32Array(room);
    this.#shares = new Float64Array(room);
  }

  keep(file: number): void {
    const { starts, targets, shares } = this.before as Edges;
    const [first, end] = [starts[file] ?? 0, starts[file + 1] ?? 0];
    this.#makeRoom(end - first);
    this.#targets.set(targets.subarray(first, end), this.#count);
    this.#shares.set(shares.subarray(first, end), this.#count);
    this.#count += end - first;
    this.#starts[file + 1] = this.#count;
  }

  draw(file: number, { used, counts }: FileNames): void {
    const pulls = this.#pulls;
    const { definers, rarity } = this.names;
    const touched: number[] = [];
    let sum = 0;
    for (let index = 0; index < used.length; index++) {
      const name = used[index] ?? 0;
      if (!pullsAnything(name, definers)) continue;
      const first = definers.starts[name] ?? 0;
      const end = definers.starts[name + 1] ?? 0;
      const pull = (Math.sqrt(counts[index] ?? 0) * (rarity[name] ?? 0)) / (end - first);
      for (let at = first; at < end; at++) {
        const target = definers.files[at] ?? 0;
        if (target === file) continue;
        if (pulls[target] === 0) touched.push(target);
        pulls[target] = (pulls[target] ?? 0) + pull;
        sum += pull;
      }
    }
    this.#makeRoom(touched.length);
    for (const target of touched) {
      this.#targets[this.#count] = target;
      this.#shares[this.#count++] = (pulls[target] ?? 0) / sum;
      pulls[target] = 0;
    }
    this.#starts[file + 1] = this.#count;
  }

  edges(): Edges {
    const end = this.#count;
    return { starts: this.#starts, targets: this.#targets.subarray(0, end), shares: this.#shares.subarray(0, end) };
  }

  #makeRoom(count: number): void {
    const wanted = this.#count + count;
    if (wanted <= this.#targets.length) return;
    this.#targets = longer(this.#targets, new Uint32Array(2 * wanted));
    this.#shares = longer(this.#shares, new Float64Array(2 * wanted));
  }
}

async function listDefiners(files: readonly FileNames[], nameCount: number, pace: Pace): Promise<Definers> {
  const starts = new Uint32Array(nameCount + 1);
  for (const [file, { defined }] of files.entries()) {
    if (file % filesAtOnce === 0) await pace.breathe();
    for (const name of defined) starts[name + 1] = (starts[name + 1] ?? 0) + 1;
  }
  for (let name = 0; name < nameCount; name++) {
    if (name % namesAtOnce === 0) await pace.breathe();
    starts[name + 1] = (starts[name + 1] ?? 0) + (starts[name] ?? 0);
  }
  const next = starts.slice();
  const list = new Uint32Array(starts[nameCount] ?? 0);
  for (const [file, { defined }] of files.entries()) {
    if (file % filesAtOnce === 0) await pace.breathe();
    for (const name of defined) {
      const at = next[name] ?? 0;
      list[at] = file;
      next[name] = at + 1;
    }
  }
  return { starts, files: list };
}

async function countUsers(files: readonly FileNames[], nameCount: number, pace: Pace): Promise<Uint32Array> {
  const users = new Uint32Array(nameCount);
  for (const [file, { used }] of files.entries()) {
    if (file % filesAtOnce === 0) await pace.breathe();
    for (const name of used) users[name] = (users[name] ?? 0) + 1;
  }
  return users;
}

/** A loop, since `some` calls a function for each of some million names. */
function usesAny({ used }: FileNames, isOther: Uint8Array): boolean {
  for (let index = 0; index < used.length; index++) if (isOther[used[index] ?? 0] === 1) return true;
  return false;
}

/** 1 for each name that other files define than before. */
async function otherDefined(now: Definers, before: Definers, nameCount: number, pace: Pace): Promise<Uint8Array> {
  const isOther = new Uint8Array(nameCount);
  for (let name = 0; name < nameCount; name++) {
    if (name % namesAtOnce === 0) await pace.breathe();
    if (!isDefinedAlike(name, now, before)) isOther[name] = 1;
  }
  return isOther;
}

function isDefinedAlike(name: number, a: Definers, b: Definers): boolean {
  const [start, otherStart] = [a.starts[name] ?? 0, b.starts[name] ?? 0];
  const count = (a.starts[name + 1] ?? 0) - start;
  if (count !== (b.starts[name + 1] ?? 0) - otherStart) return false;
  for (let index = 0; index < count; index++) {
    if (a.files[start + index] !== b.files[otherStart + index]) return false;
  }
  return true;
}

export function isSameNumbers(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}
