// Owns: where the parts of this installation lie, seen from the bundle dist/cli.js, and where the user's own data do.
import { homedir } from "node:os";
import * as path from "node:path";

const root = path.join(__dirname, "..");

export const places = {
  root,
  engineHost: path.join(root, "dist", "engineHost.js"),
  contextWorker: path.join(root, "dist", "contextWorker.js"),
  addon: path.join(root, "dist", "native", "ringside.node"),
  nativeTool: path.join(root, "build", "native", "ringside-tool"),
  embeddedModel: path.join(root, "media", "nano"),
  benchTables: path.join(root, "docs", "bench"),
  snapshots: path.join(process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache"), "ringside", "snapshots"),
} as const;
