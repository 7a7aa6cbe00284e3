// Owns: what the user wants of files and folders: reading it back from where it was stored, and changing it. Knows nothing of
// VS Code. Must never trust what was stored: it may be older than this version, or damaged.
import type { FileChoice, FileChoices } from "../protocol/qa";

export const mostChoices = 5_000;
const maxPathCharacters = 4_096;
const kinds: readonly FileChoices[string][] = ["full", "outline", "out", "automatic"];

/** What is no path of a repository or no choice is passed over. */
export function parseChoices(stored: unknown): FileChoices {
  if (typeof stored !== "object" || stored === null || Array.isArray(stored)) return {};
  const found: [string, FileChoices[string]][] = [];
  for (const [path, value] of Object.entries(stored)) {
    const choice = kinds.find((kind) => kind === value);
    if (choice !== undefined && isRepositoryPath(path) && found.length < mostChoices) found.push([path, choice]);
  }
  return inOrder(found);
}

/**
 * Null: nothing is wanted any more, and the plan decides, also where a folder around it was chosen. A folder speaks for everything
 * in it, so what was chosen in there before goes. Throws RangeError when there are too many.
 */
export function withChoice(choices: FileChoices, paths: readonly string[], choice: FileChoice | null): FileChoices {
  const chosen = outermostOf(paths);
  const kept = Object.entries(choices).filter(([path]) => !chosen.has(path) && nearestFolder(path, chosen) === null);
  const around = Object.fromEntries(kept);
  const isSpokenFor = (path: string): boolean => choiceFor(around, path) !== null;
  const own = choice === null ? [...chosen].filter(isSpokenFor) : [...chosen];
  const added = own.map((path): [string, FileChoices[string]] => [path, choice ?? "automatic"]);
  if (kept.length + added.length > mostChoices) throw new RangeError(`at most ${String(mostChoices)} choices`);
  return inOrder([...kept, ...added]);
}

/** What holds for a path, and the path it was chosen for; null: the plan decides. */
export function choiceFor(
  choices: FileChoices,
  path: string,
): { readonly choice: FileChoice; readonly of: string } | null {
  const of = Object.hasOwn(choices, path)
    ? path
    : nearestFolder(path, { has: (folder) => Object.hasOwn(choices, folder) });
  const choice = of === null ? undefined : choices[of];
  return of === null || choice === undefined || choice === "automatic" ? null : { choice, of };
}

/** Every chosen path, and every folder that holds one. */
export function placesOf(choices: FileChoices): ReadonlySet<string> {
  const places = new Set(Object.keys(choices));
  for (const path of Object.keys(choices)) {
    let slash = path.lastIndexOf("/", path.length - 2);
    while (slash > 0 && !places.has(path.slice(0, slash + 1))) {
      places.add(path.slice(0, slash + 1));
      slash = path.lastIndexOf("/", slash - 1);
    }
  }
  return places;
}

/** A path inside another one of them adds nothing. */
function outermostOf(paths: readonly string[]): ReadonlySet<string> {
  const all = new Set(paths);
  return new Set(paths.filter((path) => nearestFolder(path, all) === null));
}

/** The longest folder that holds the path, out of `folders`. */
function nearestFolder(path: string, folders: { has(folder: string): boolean }): string | null {
  for (let slash = path.lastIndexOf("/", path.length - 2); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
    const folder = path.slice(0, slash + 1);
    if (folders.has(folder)) return folder;
  }
  return null;
}

function isRepositoryPath(path: string): boolean {
  if (path.length > maxPathCharacters) return false;
  const parts = (path.endsWith("/") ? path.slice(0, -1) : path).split("/");
  return parts.every((part) => part !== "" && part !== "." && part !== ".." && !part.includes("\0"));
}

/** The same choices are stored the same, whatever the order they were made in. */
function inOrder(entries: readonly (readonly [string, FileChoices[string]])[]): FileChoices {
  return Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
}
