// Owns: the user's settings. All are of this machine: a workspace can change none of them (package.json declares their scope).
// Must never trust a value: settings files are edited by hand.
import { ConfigurationTarget, workspace } from "vscode";
import { maxThreads } from "../protocol/engine";

export const section = "ringside";

export interface Settings {
  /** "": the embedded model. */
  readonly model: string;
  /** 0: the number of physical cores. */
  readonly threads: number;
}

export function readSettings(): Settings {
  const settings = workspace.getConfiguration(section);
  const model = settings.get<unknown>("model");
  const threads = settings.get<unknown>("threads");
  const isCount = typeof threads === "number" && Number.isInteger(threads) && threads >= 0 && threads <= maxThreads;
  return { model: typeof model === "string" ? model.trim() : "", threads: isCount ? threads : 0 };
}

export async function writeModelSetting(folder: string): Promise<void> {
  const value = folder === "" ? undefined : folder;
  await workspace.getConfiguration(section).update("model", value, ConfigurationTarget.Global);
}
