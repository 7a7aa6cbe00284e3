// Owns: what the user wants of one file, out of the choices for files and folders. Must never guess where nothing was chosen.
import type { FileChoice, FileChoices } from "../protocol/qa";

export type ChoiceOf = (path: string) => FileChoice | undefined;

/** The most specific path wins: the file's own, then the nearest folder's. "/" stands for everything. */
export function choiceLookup(choices: FileChoices): ChoiceOf {
  const byPath = new Map(Object.entries(choices));
  if (byPath.size === 0) return () => undefined;
  const nearest = (path: string): FileChoices[string] | undefined => {
    const own = byPath.get(path);
    if (own !== undefined) return own;
    for (let slash = path.lastIndexOf("/"); slash >= 0; slash = slash > 0 ? path.lastIndexOf("/", slash - 1) : -1) {
      const folder = byPath.get(path.slice(0, slash + 1));
      if (folder !== undefined) return folder;
    }
    return byPath.get("/");
  };
  return (path) => {
    const choice = nearest(path);
    return choice === "automatic" ? undefined : choice;
  };
}
