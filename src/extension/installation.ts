// Owns: where the parts of the installed extension lie.
import * as path from "node:path";
import { Uri } from "vscode";
import type { ExtensionContext } from "vscode";

export interface Installation {
  readonly engineHost: string;
  readonly contextWorker: string;
  readonly addon: string;
  readonly embeddedModel: string;
  /** The only folder that a page may load from. */
  readonly pages: Uri;
  /** Where the extension keeps files, on this machine and for this user alone. */
  readonly storage: string;
  /** Where what was read is kept. */
  readonly snapshots: string;
}

export function installationOf({ extensionUri, extensionPath, globalStorageUri }: ExtensionContext): Installation {
  return {
    engineHost: path.join(extensionPath, "dist", "engineHost.js"),
    contextWorker: path.join(extensionPath, "dist", "contextWorker.js"),
    addon: path.join(extensionPath, "dist", "native", "ringside.node"),
    embeddedModel: path.join(extensionPath, "media", "nano"),
    pages: Uri.joinPath(extensionUri, "dist", "webview"),
    storage: globalStorageUri.fsPath,
    snapshots: path.join(globalStorageUri.fsPath, "snapshots"),
  };
}
