// Owns: the one item of the status bar: what the engine is doing and how far it is, and in its tooltip with what.
import { l10n, MarkdownString, StatusBarAlignment, window } from "vscode";
import type { EngineState, EngineStatus } from "../protocol/engine";
import type { ReadingProgress } from "../protocol/qa";
import type { EngineAccess } from "./engineAccess";
import { percentOf } from "./memoryBar";
import { backendText, lossTexts, speedTexts, weightsText } from "./modelFacts";
import { wordError, wordReading } from "./words";
import type { Disposable } from "./disposable";

const icons: Readonly<Record<EngineState, string>> = {
  stopped: "$(comment-discussion)",
  starting: "$(loading~spin)",
  loading: "$(loading~spin)",
  ready: "$(comment-discussion)",
  reading: "$(loading~spin)",
  generating: "$(loading~spin)",
  failed: "$(warning)",
};

const words: Readonly<Record<EngineState, () => string>> = {
  stopped: () => l10n.t("No model is loaded"),
  starting: () => l10n.t("Starting the engine"),
  loading: () => l10n.t("Loading the model"),
  ready: () => l10n.t("Ready"),
  reading: () => l10n.t("Reading the repository"),
  generating: () => l10n.t("Answering"),
  failed: () => l10n.t("The engine failed"),
};

export function registerStatusBar(engine: EngineAccess): Disposable[] {
  const item = window.createStatusBarItem("ringside.engine", StatusBarAlignment.Left);
  item.name = l10n.t("Ringside: Engine");
  item.command = "ringside.ask";
  const update = (): void => {
    const status = engine.port.status();
    const { reading } = engine;
    const percent = reading === null ? "" : ` ${String(percentOf(reading.position, reading.promptTokens))} %`;
    item.text = `${icons[status.state]} Ringside${percent}`;
    item.tooltip = tooltip(status, reading);
    item.accessibilityInformation = { label: `Ringside: ${words[status.state]()}${percent}`, role: "button" };
  };
  update();
  item.show();
  return [item, engine.onDidChange(update), engine.onDidRead(update)];
}

function tooltip(status: EngineStatus, reading: ReadingProgress | null): MarkdownString {
  const { state, model, error } = status;
  const text = new MarkdownString();
  text.supportThemeIcons = true;
  text.isTrusted = { enabledCommands: ["ringside.ask", "ringside.stop", "ringside.showLog", "ringside.restartEngine"] };
  text.appendMarkdown(`**Ringside**\n\n`);
  text.appendText(words[state]());
  if (reading !== null) text.appendText(`\n${wordReading(reading)}`);
  if (error !== null && state === "failed") text.appendText(`\n${wordError(error)}`);
  const facts = model === null ? [] : [model.device, backendText(model), weightsText(model)];
  for (const fact of [...lossTexts(status), ...facts, ...speedTexts(status)]) text.appendText(`\n${fact}`);
  const actions = [
    `[${l10n.t("Ask")}](command:ringside.ask)`,
    ...(reading === null ? [] : [`[${l10n.t("Stop")}](command:ringside.stop)`]),
    `[${l10n.t("Show Log")}](command:ringside.showLog)`,
    `[${l10n.t("Restart Engine")}](command:ringside.restartEngine)`,
  ];
  text.appendMarkdown(`\n\n${actions.join(" · ")}`);
  return text;
}
