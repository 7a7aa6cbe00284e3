// Owns: what people want to know and do about the snapshots on their disk, and the layouts beside them, without an engine.
import { clearLayouts } from "./keptLayouts";
import { FolderDisk } from "./snapshotDisk";
import { SnapshotStore } from "./snapshotStore";
import type { StoredSnapshot } from "./snapshotStore";

const open = (folder: string): Promise<SnapshotStore> =>
  SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes: Number.MAX_SAFE_INTEGER });

/** Damaged ones are removed on the way. */
export async function listSnapshots(folder: string): Promise<readonly StoredSnapshot[]> {
  return (await open(folder)).list();
}

/** All of them, or those of one repository, and the layouts too. Returns how many bytes were freed. */
export async function clearSnapshots(folder: string, repository?: string): Promise<number> {
  const store = await open(folder);
  const before = store.bytes;
  if (repository === undefined) await store.clear();
  else for (const { key, label } of store.list()) if (label === repository) await store.forget(key);
  return before - store.bytes + (await clearLayouts(new FolderDisk(folder), repository).catch(() => 0));
}
