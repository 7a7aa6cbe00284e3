// Owns: where the scripts find and put things. Must never create or read anything itself.
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** A path inside the checkout. */
export const at = (...parts) => path.join(root, ...parts);

/** Downloaded tools (Node, the VS Code server), shared by all checkouts of one user. */
export const toolsFolder = process.env.RINGSIDE_TOOLS ?? path.join(os.homedir(), ".cache", "ringside", "tools");

/** Profiles of the editors that `npm start` opens; never the user's own. */
export const profilesFolder = path.join(
  process.env.XDG_DATA_HOME ?? path.join(os.homedir(), ".local", "share"),
  "ringside",
);

export const addonFile = at("dist", "native", "ringside.node");
/** Beside the addon, where native/model/backend_library.cc looks for it. */
export const cudaLibraryFile = at("dist", "native", "libringside_cuda.so");
/** The platform that the addon is built for, in the words of the extension's packager. */
export const vsixTarget = `${process.platform}-${process.arch}`;
export const vsixFile = at("build", `ringside-${vsixTarget}.vsix`);
