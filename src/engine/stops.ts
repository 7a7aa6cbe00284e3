// Owns: where reading a prompt stops to keep the state: after files, not too near to each other and not too far apart.
import type { Prompt } from "../protocol/engine";

const leastTokens = 2_048;
const mostTokens = 16_384;

/** How far apart states are kept, so that those of a whole context take at most half of the memory for them. */
export function tokensBetweenStops(contextTokens: number, stateBytes: number, limitBytes: number): number {
  let between = leastTokens;
  while (between < mostTokens && (contextTokens / between) * stateBytes > limitBytes / 2) between *= 2;
  return between;
}

/** Where the parts of a prompt end. */
export interface PromptEnds {
  /** Of the base's pieces. */
  readonly base: readonly number[];
  /** Of the deltas. */
  readonly deltas: readonly number[];
  readonly prompt: number;
}

/** `ends`: where each piece of the prompt ends. */
export function endsOf({ basePieces, deltaPieces = 0 }: Prompt, ends: readonly number[]): PromptEnds {
  const standing = basePieces + deltaPieces;
  return { base: ends.slice(0, basePieces), deltas: ends.slice(basePieces, standing), prompt: ends.at(-1) ?? 0 };
}

/** So many of the last deltas can be replaced without reading those before them again. */
const deltaStops = 2;

/**
 * Ascending positions, the ends of the base, of the last deltas and of the prompt among them. A stop stands at the end of a piece, so
 * that a change behind it leaves its state of use; inside only where one piece is longer than twice the distance.
 */
export function stopsOf({ base, deltas, prompt }: PromptEnds, between: number): number[] {
  const baseTokens = base.at(-1) ?? 0;
  const standing = deltas.at(-1) ?? baseTokens;
  const stops: number[] = [];
  let last = 0;
  for (const end of [...base, ...deltas]) {
    while (end - last > 2 * between) stops.push((last += between));
    if (end - last >= between) stops.push((last = end));
  }
  // Before the last file too: it is the one that changed last, and may change again.
  const certain = [base.at(-2) ?? 0, baseTokens, ...deltas.slice(-deltaStops), prompt];
  return [...new Set([...stops.filter((stop) => stop < standing), ...certain])]
    .filter((stop) => stop > 0)
    .sort((a, b) => a - b);
}
