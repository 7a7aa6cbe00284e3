// Owns: a bar of text that shows how parts share a whole, for places where only text can be shown. What it shows is also said in words.
const glyphs = ["█", "▓", "▒", "░"] as const;

/** So many characters; each part that is there has at least one of its own kind, in the order given. At most four parts. */
export function memoryBar(parts: readonly number[], characters: number): string {
  const total = parts.reduce((sum, part) => sum + part, 0);
  if (total <= 0) return "";
  const shares = parts.map((part) => (part * characters) / total);
  const cells = shares.map((share, index) => ((parts[index] ?? 0) > 0 ? Math.max(1, Math.round(share)) : 0));
  // Rounding may have given too many or too few: the largest part can spare or take them.
  const largest = parts.indexOf(Math.max(...parts));
  const others = cells.reduce((sum, cell, index) => (index === largest ? sum : sum + cell), 0);
  cells[largest] = Math.max(1, characters - others);
  return cells.map((count, index) => (glyphs[index] ?? "░").repeat(count)).join("");
}

/** Whole percents. */
export function percentOf(part: number, total: number): number {
  return total > 0 ? Math.round((100 * part) / total) : 0;
}
