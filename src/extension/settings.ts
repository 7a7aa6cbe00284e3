// Owns: the user's settings. All are of this machine: a workspace can change none of them (package.json declares their scope).
// Must never trust a value: settings files are edited by hand.
import { ConfigurationTarget, workspace } from "vscode";
import { kvFormats, maxDeviceMemoryBytes, maxDevices, maxThreads } from "../protocol/engine";
import type { KvFormat } from "../protocol/engine";
import { readAheadModes } from "./readAhead";
import type { ReadAheadMode } from "./readAhead";

export const section = "ringside";

export interface Settings {
  /** "": the embedded model. */
  readonly model: string;
  /** 0: the number of physical cores. */
  readonly threads: number;
  /** 0: what is free. */
  readonly gpuMemoryBytes: number;
  /** -1: the one with most free memory. */
  readonly gpuDevice: number;
  readonly kvFormat: KvFormat;
  /** 0: nothing is kept on the disk. Takes effect when the window is opened anew. */
  readonly snapshotDiskBytes: number;
  readonly readAhead: ReadAheadMode;
}

const bytesPerGigabyte = 2 ** 30;

export function readSettings(): Settings {
  const settings = workspace.getConfiguration(section);
  const model = settings.get<unknown>("model");
  const number = (name: string, min: number, max: number, otherwise: number): number => {
    const value = settings.get<unknown>(name);
    return typeof value === "number" && value >= min && value <= max ? value : otherwise;
  };
  const integer = (name: string, min: number, max: number, otherwise: number): number => {
    const value = number(name, min, max, otherwise);
    return Number.isInteger(value) ? value : otherwise;
  };
  const format = settings.get<unknown>("keyValueFormat");
  const readAhead = settings.get<unknown>("readAhead");
  return {
    model: typeof model === "string" ? model.trim() : "",
    threads: integer("threads", 0, maxThreads, 0),
    gpuMemoryBytes: Math.floor(
      number("gpuMemoryLimit", 0, maxDeviceMemoryBytes / bytesPerGigabyte, 0) * bytesPerGigabyte,
    ),
    gpuDevice: integer("gpuDevice", -1, maxDevices - 1, -1),
    kvFormat: kvFormats.find((name) => name === format) ?? "bf16",
    snapshotDiskBytes: Math.floor(number("snapshotDiskLimit", 0, 100_000, 4) * bytesPerGigabyte),
    readAhead: readAheadModes.find((name) => name === readAhead) ?? "onPower",
  };
}

export async function writeModelSetting(folder: string): Promise<void> {
  const value = folder === "" ? undefined : folder;
  await workspace.getConfiguration(section).update("model", value, ConfigurationTarget.Global);
}
