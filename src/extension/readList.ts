// Owns: the list of everything that was read and everything that was left out, with the reason, as a document that cannot be
// edited. Nothing is left out of it.
import { commands, EventEmitter, l10n, Uri, window, workspace } from "vscode";
import type { ContextPlan } from "../context/plan";
import type { PlannedFile } from "../protocol/qa";
import { rounded } from "./modelFacts";
import type { Preparation } from "./preparation";
import type { Repository } from "./repository";
import { dropReasonsInOrder, keepReasonsInOrder, wordDropReason, wordKeepReason } from "./words";
import type { Disposable } from "./disposable";

const scheme = "ringside";

export function registerReadList(repository: Repository, preparation: Preparation): Disposable[] {
  const changed = new EventEmitter<Uri>();
  const uri = Uri.from({ scheme, path: `/${l10n.t("What was read")}.txt` });
  return [
    changed,
    preparation.onDidChange(() => changed.fire(uri)),
    workspace.registerTextDocumentContentProvider(scheme, {
      onDidChange: changed.event,
      provideTextDocumentContent: () => readListText(repository.open?.context.lastPlan),
    }),
    commands.registerCommand("ringside.showFiles", async () => {
      changed.fire(uri);
      await window.showTextDocument(uri, { preview: true });
    }),
  ];
}

export function readListText(plan: ContextPlan | undefined): string {
  if (plan === undefined) return `${l10n.t("Nothing has been read yet.")}\n`;
  const { summary, files, flagged } = plan;
  const sections = [
    l10n.t(
      "Read {0} of {1} text files: {2} of at most {3} tokens",
      rounded(summary.readFiles),
      rounded(summary.totalFiles),
      rounded(summary.readTokens),
      rounded(summary.budgetTokens),
    ),
    ...keepReasonsInOrder.flatMap((reason) => section(wordKeepReason(reason), files, reason)),
    ...dropReasonsInOrder.flatMap((reason) =>
      section(`${l10n.t("Left out")}: ${wordDropReason(reason)}`, files, reason),
    ),
    ...(flagged.length === 0
      ? []
      : [
          [
            l10n.t("Read, but with characters that are not seen ({0})", flagged.length),
            ...flagged.map(({ path }) => line(path, 0)),
          ].join("\n"),
        ]),
  ];
  return `${sections.join("\n\n")}\n`;
}

function section(title: string, files: readonly PlannedFile[], reason: PlannedFile["reason"]): string[] {
  const found = files.filter((file) => file.reason === reason);
  if (found.length === 0) return [];
  return [[`${title} (${rounded(found.length)})`, ...found.map(({ path, tokens }) => line(path, tokens))].join("\n")];
}

function line(path: string, tokens: number): string {
  return `${(tokens === 0 ? "" : rounded(tokens)).padStart(9)}  ${path}`;
}
