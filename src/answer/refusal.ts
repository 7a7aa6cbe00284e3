// Owns: the check of the model's "I could not find": is the name really nowhere, or in a file that was not read?
// Must never search files that were left out as secret or ignored.
import type { ScannedFile } from "../context/contentCache";
import type { RepositoryScan } from "../context/scan";
import { searchNames } from "../context/search";
import type { FileHits } from "../context/search";
import { lineAt } from "../context/text";
import type { RefusalCheck } from "../protocol/qa";

const placesAtMost = 5;
/** What is longer is no name, and not to be searched for. */
const longestName = 200;
const refusal =
  /\bcould(?: not|n['’]t) find (?:any (?:mention|trace) of )?(?:(`+)([^\n]+?)\1|"([^"\n]+)"|“([^”\n]+)”)/i;

/** The name that the answer says is not there; undefined when it says no such thing. */
export function refusedName(answer: string): string | undefined {
  const match = refusal.exec(answer);
  const name = (match?.[2] ?? match?.[3] ?? match?.[4])?.trim();
  return name === undefined || name === "" || name.length > longestName ? undefined : name;
}

/** Where the name stands in text of the repository, packed or not: definitions first, then where it stands most often. */
export async function checkRefusal(
  name: string,
  scan: RepositoryScan,
  readPaths: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<RefusalCheck> {
  const files = [...scan.files, ...scan.setAside];
  const hits = (await searchNames(scan, files, [name], signal)).get(name) ?? [];
  const best = [...hits].sort(compareHits).slice(0, placesAtMost);
  const places = await Promise.all(
    best.map(async ({ file, definition, firstOffset }) => ({
      path: file.path,
      line: definition?.line ?? (await lineIn(scan, file, firstOffset)),
      wasRead: readPaths.has(file.path),
    })),
  );
  return { name, places };
}

function compareHits(a: FileHits, b: FileHits): number {
  const set = (hit: FileHits): number => (hit.definition === undefined ? 2 : 0) + (hit.file.excluded === null ? 0 : 1);
  return set(a) - set(b) || b.hits - a.hits || (a.file.path < b.file.path ? -1 : 1);
}

async function lineIn(scan: RepositoryScan, file: ScannedFile, offset: number): Promise<number> {
  const text = await scan.text(file);
  return text === undefined ? 1 : lineAt(text, offset);
}
