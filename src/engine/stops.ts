// Owns: where reading a prompt stops to keep the state: after files, not too near to each other and not too far apart.
const leastTokens = 2_048;
const mostTokens = 16_384;

/** How far apart states are kept, so that those of a whole context take at most half of the memory for them. */
export function tokensBetweenStops(contextTokens: number, stateBytes: number, limitBytes: number): number {
  let between = leastTokens;
  while (between < mostTokens && (contextTokens / between) * stateBytes > limitBytes / 2) between *= 2;
  return between;
}

/**
 * Ascending positions, the end of the base and of the prompt among them. `ends`: where the base's pieces end. A stop stands at the
 * end of a piece, so that a change behind it leaves its state of use; inside only where one piece is longer than twice the distance.
 */
export function stopsOf(ends: readonly number[], baseTokens: number, promptTokens: number, between: number): number[] {
  const stops: number[] = [];
  let last = 0;
  for (const end of ends) {
    while (end - last > 2 * between) stops.push((last += between));
    if (end - last >= between) stops.push((last = end));
  }
  return [...new Set([...stops.filter((stop) => stop < baseTokens), baseTokens, promptTokens])].filter(
    (stop) => stop > 0,
  );
}
