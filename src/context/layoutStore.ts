// The port through which this room keeps the layout of a base from one process to the next. Implemented over files beside the
// snapshots (src/engine/keptLayouts.ts). Neither call rejects: what cannot be kept is read again.

export interface LayoutStore {
  /** What was saved under that name last; undefined: nothing, or it was not whole. */
  load(name: string): Promise<string | undefined>;
  /** Resolves when it is there for good, or given up. */
  save(name: string, content: string): Promise<void>;
}
