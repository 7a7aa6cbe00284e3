// Owns: how much the files of a repository lean on one another: a rank over "uses a name that the other defines". Must depend on
// names alone, so that the same repository always gives the same numbers.
import type { FileNames } from "./fileFacts";
import type { Pace } from "./pace";

/** A name that more files define says nothing about any of them. */
const definersAtMost = 8;
const rounds = 12;
/** Share of a file's rank that it passes on; the rest is spread by `weights`. */
const damping = 0.85;
const filesAtOnce = 64;

interface Edges {
  /** Edges of file i: from starts[i] to starts[i + 1]. */
  readonly starts: Uint32Array;
  readonly targets: Uint32Array;
  /** Those of one file add up to 1. */
  readonly shares: Float64Array;
}

/**
 * PageRank: a file's uses pass its rank on to the files that define what it uses, rare names more than common ones. A mean file
 * has 1. `weights` says how much a file's own voice counts.
 */
export async function rankByReferences(
  files: readonly FileNames[],
  weights: Float64Array,
  nameCount: number,
  pace: Pace,
): Promise<Float64Array> {
  const count = files.length;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (count === 0 || total === 0) return new Float64Array(count);
  const own = weights.map((weight) => (weight * count) / total);
  const edges = await edgesOf(files, nameCount, pace);
  let ranks = own.slice();
  for (let round = 0; round < rounds; round++) {
    await pace.breathe();
    const next = new Float64Array(count);
    let unlinked = 0;
    for (let file = 0; file < count; file++) {
      const rank = ranks[file] ?? 0;
      const end = edges.starts[file + 1] ?? 0;
      let edge = edges.starts[file] ?? 0;
      if (edge === end) unlinked += rank;
      for (; edge < end; edge++) {
        const target = edges.targets[edge] ?? 0;
        next[target] = (next[target] ?? 0) + rank * (edges.shares[edge] ?? 0);
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

async function edgesOf(files: readonly FileNames[], nameCount: number, pace: Pace): Promise<Edges> {
  const definers = await listDefiners(files, nameCount, pace);
  const rarity = await rarityOfNames(files, nameCount, pace);
  const starts = new Uint32Array(files.length + 1);
  const targets: number[] = [];
  const shares: number[] = [];
  const pulls = new Float64Array(files.length);
  for (const [file, { used, counts }] of files.entries()) {
    if (file % filesAtOnce === 0) await pace.breathe();
    const touched: number[] = [];
    let sum = 0;
    for (let index = 0; index < used.length; index++) {
      const name = used[index] ?? 0;
      const first = definers.starts[name] ?? 0;
      const end = definers.starts[name + 1] ?? 0;
      if (end === first || end - first > definersAtMost) continue;
      const pull = (Math.sqrt(counts[index] ?? 0) * (rarity[name] ?? 0)) / (end - first);
      for (let at = first; at < end; at++) {
        const target = definers.files[at] ?? 0;
        if (target === file) continue;
        if (pulls[target] === 0) touched.push(target);
        pulls[target] = (pulls[target] ?? 0) + pull;
        sum += pull;
      }
    }
    for (const target of touched) {
      targets.push(target);
      shares.push((pulls[target] ?? 0) / sum);
      pulls[target] = 0;
    }
    starts[file + 1] = targets.length;
  }
  return { starts, targets: Uint32Array.from(targets), shares: Float64Array.from(shares) };
}

async function listDefiners(
  files: readonly FileNames[],
  nameCount: number,
  pace: Pace,
): Promise<{ starts: Uint32Array; files: Uint32Array }> {
  const starts = new Uint32Array(nameCount + 1);
  for (const { defined } of files) for (const name of defined) starts[name + 1] = (starts[name + 1] ?? 0) + 1;
  for (let name = 0; name < nameCount; name++) starts[name + 1] = (starts[name + 1] ?? 0) + (starts[name] ?? 0);
  await pace.breathe();
  const next = starts.slice();
  const list = new Uint32Array(starts[nameCount] ?? 0);
  for (const [file, { defined }] of files.entries()) {
    for (const name of defined) {
      const at = next[name] ?? 0;
      list[at] = file;
      next[name] = at + 1;
    }
  }
  await pace.breathe();
  return { starts, files: list };
}

/** The logarithm of how few of the files use a name. */
async function rarityOfNames(files: readonly FileNames[], nameCount: number, pace: Pace): Promise<Float64Array> {
  const users = new Uint32Array(nameCount);
  for (const [file, { used }] of files.entries()) {
    if (file % filesAtOnce === 0) await pace.breathe();
    for (const name of used) users[name] = (users[name] ?? 0) + 1;
  }
  return Float64Array.from(users, (count) => Math.log(1 + files.length / (1 + count)));
}
