// Owns: the order of files in a prompt that is read for the first time: what has not changed for longest comes first, so that the
// next edit is near the end and what was read before it stays. Must never look at a clock: only at when files changed.
import type { ScannedFile } from "./contentCache";
import { fileClass } from "./rank";
import { comparePaths } from "./repoReader";
import type { ChangeHistory } from "./repoReader";

const dayMs = 24 * 60 * 60 * 1000;

/** Of files that changed together, source comes first, and folders are kept together. */
export function inPromptOrder<T extends { readonly file: ScannedFile }>(
  items: readonly T[],
  history: ChangeHistory | null,
): T[] {
  // Made once for each file: the sort asks for them again and again.
  const keyed = items.map((item) => ({ item, age: ageOf(item.file, history), kind: fileClass(item.file) }));
  keyed.sort((a, b) => a.age - b.age || a.kind - b.kind || comparePaths(a.item.file.path, b.item.file.path));
  return keyed.map(({ item }) => item);
}

/**
 * By commit where there is a history: a checkout gives all files the time it was made at. Elsewhere by the day, so that files
 * written together stay together.
 */
function ageOf(file: ScannedFile, history: ChangeHistory | null): number {
  if (history === null) return Math.floor(file.modifiedMs / dayMs);
  const unlisted = history.isWhole ? Number.MAX_SAFE_INTEGER : 0;
  return history.changedAt.get(file.path) ?? unlisted;
}
