// Owns: where the layouts of the open folders' bases are kept: beside the snapshots, and where those may not be kept, nowhere.
import type { LayoutStore } from "../context/layoutStore";
import { layoutsIn } from "../engine/client";
import type { Installation } from "./installation";
import { readSettings } from "./settings";
import { repositoryName } from "./trust";

export function workspaceLayouts({ snapshots }: Installation): LayoutStore {
  // Asked each time: folders come to be trusted, and settings change.
  const store = (): LayoutStore | undefined => {
    const repository = repositoryName();
    return repository === "" || readSettings().snapshotDiskBytes === 0 ? undefined : layoutsIn(snapshots, repository);
  };
  return {
    load: async (name) => store()?.load(name),
    save: async (name, content) => store()?.save(name, content),
  };
}
