// Owns: what is said of a loaded model: device, memory, speed. Figures that were not measured are left out.
import { l10n } from "vscode";
import type { EngineStatus, ModelInfo } from "../protocol/engine";

export function backendText({ backend, isa, threads }: ModelInfo): string {
  const what = [backend, isa].filter((part) => part !== "").join(", ");
  return l10n.t("{0}, {1} threads", what, threads);
}

/** What a loaded model takes with one full context, each part with its name; what of it is not on the GPU the device's name tells. */
export function memoryParts(model: ModelInfo): readonly { readonly label: string; readonly bytes: number }[] {
  return [
    { label: l10n.t("Weights"), bytes: model.weightResidentBytes },
    { label: l10n.t("State"), bytes: model.stateBytes },
    { label: l10n.t("Keys and values"), bytes: model.kvBytesPerToken * model.contextTokens },
  ];
}

export function weightsText({ weightResidentBytes }: ModelInfo): string {
  return l10n.t("{0} in memory", bytesText(weightResidentBytes));
}

export function stateText({ stateBytes, kvBytesPerToken }: ModelInfo): string {
  return l10n.t("{0}, and {1} a token", bytesText(stateBytes), bytesText(kvBytesPerToken));
}

/** Empty: nothing was measured yet. */
export function speedTexts({ prefillTokensPerSecond, decodeTokensPerSecond }: EngineStatus): string[] {
  return [
    ...(prefillTokensPerSecond === undefined ? [] : [l10n.t("{0} tok/s read", rounded(prefillTokensPerSecond))]),
    ...(decodeTokensPerSecond === undefined ? [] : [l10n.t("{0} tok/s written", rounded(decodeTokensPerSecond))]),
  ];
}

/** Empty: no GPU was lost. */
export function lossTexts({ deviceLoss }: EngineStatus): string[] {
  if (deviceLoss === null) return [];
  if (deviceLoss.onProcessor)
    return [
      l10n.t(
        "The GPU failed {0} times, so the model runs on the processor until you restart the engine",
        deviceLoss.times,
      ),
    ];
  return [l10n.t("The GPU failed and was started again")];
}

export function rounded(value: number): string {
  return Math.round(value).toLocaleString("en");
}

export function bytesText(bytes: number): string {
  const units = ["B", "KB", "MB", "GB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[unit] ?? ""}`;
}
