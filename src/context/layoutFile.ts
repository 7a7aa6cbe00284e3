// Owns: a layout as text, for the store, and back. Must never take anything that is not a whole layout; what it says of the
// repository is compared with the repository before it is believed, and what it costs is counted anew.
import { choice, integer, list, object, tagged, text, truth } from "../protocol/fields";
import type { Check } from "../protocol/fields";
import type { BaseLayout, Change, LaidText } from "./baseLayout";

const layoutFormat = 1;
/** More than the window of any model holds. */
export const layoutCharacters = 64 * 1024 * 1024;
const filesAtMost = 100_000;
const deltasAtMost = 1_000;
const pathCharacters = 4_096;

/** A layout whose tokens have to be counted. */
export interface KeptLayout {
  readonly complete: boolean;
  readonly files: readonly LaidText[];
  readonly changes: readonly Change<LaidText>[];
}

const path = text(pathCharacters);
const laidText: Check<LaidText> = object<LaidText>({
  path,
  text: text(layoutCharacters),
  mode: choice(["full", "outline"]),
});
const keptLayout = object<KeptLayout & { readonly format: number }>({
  format: integer(layoutFormat, layoutFormat),
  complete: truth,
  files: list(filesAtMost, laidText),
  changes: list(
    deltasAtMost,
    tagged<"change", Change<LaidText>>("change", {
      text: { file: laidText, replaces: truth },
      gone: { path },
      moved: { path, to: path },
    }),
  ),
});

export function encodeLayout({ complete, files, deltas }: BaseLayout): string {
  return JSON.stringify({ format: layoutFormat, complete, files, changes: deltas });
}

/** undefined for everything that encodeLayout() does not write, another format's layouts included. */
export function parseLayout(content: string): KeptLayout | undefined {
  if (content.length > layoutCharacters) return undefined;
  try {
    const { complete, files, changes } = keptLayout(JSON.parse(content), "layout");
    const isOnce = new Set(files.map((file) => file.path)).size === files.length;
    return isOnce ? { complete, files, changes } : undefined;
  } catch {
    return undefined;
  }
}
