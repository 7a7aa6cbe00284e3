// Owns: of which files the names are read by parsing them, where a repository is too large to parse them all in a minute: those of
// the others are read from the shape of their lines, which is ten times as fast. Must depend on kinds and sizes of files alone.
import type { ScannedFile } from "./contentCache";
import { isSource } from "./definitions";
import type { Pace } from "./pace";
import { costStep, fileWeight } from "./rank";

/** A thread parses about one megabyte in a second. */
const parsedBytesAtMost = 16 * 1024 * 1024;
const filesAtOnce = 512;

export type ParseChoice = (file: ScannedFile) => boolean;

/**
 * What is worth most for its size, in whole steps of worth for size: an edit then seldom changes what becomes of other files, and
 * what was learned of them stays.
 */
export async function chooseParsed(
  files: readonly ScannedFile[],
  pace: Pace,
  bytesAtMost = parsedBytesAtMost,
): Promise<ParseChoice> {
  const bytesByStep = new Map<number, number>();
  for (const [index, file] of files.entries()) {
    if (index % filesAtOnce === 0) await pace.breathe();
    if (!isSource(file.path)) continue;
    const step = stepOf(file);
    bytesByStep.set(step, (bytesByStep.get(step) ?? 0) + file.bytes);
  }
  let left = bytesAtMost;
  for (const [step, bytes] of [...bytesByStep].sort(([a], [b]) => a - b)) {
    left -= bytes;
    if (left < 0) return (file) => stepOf(file) < step;
  }
  return () => true;
}

function stepOf(file: ScannedFile): number {
  return costStep(file.bytes, fileWeight(file));
}
