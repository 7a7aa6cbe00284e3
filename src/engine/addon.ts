// Owns: opening the native addon. Only host.ts may import this file: no other process of the product loads native code.
import { createRequire } from "node:module";
import { failure } from "../protocol/errors";
import type { NativeAddon } from "./addonTypes";

const maxReasonCharacters = 500;

/** Throws RingsideFailure "engine-missing" when the file is absent, not for this machine, or not this addon. */
export function openAddon(path: string): NativeAddon {
  let loaded: unknown;
  try {
    loaded = createRequire(path)(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    // Node appends a "Require stack" that says nothing about the file.
    throw failure("engine-missing", path, "", (reason.split("\n")[0] ?? "").slice(0, maxReasonCharacters));
  }
  if (!isAddon(loaded)) throw failure("engine-missing", path, "export loadModel", "none");
  return loaded;
}

function isAddon(loaded: unknown): loaded is NativeAddon {
  return (
    typeof loaded === "object" && loaded !== null && "loadModel" in loaded && typeof loaded.loadModel === "function"
  );
}
