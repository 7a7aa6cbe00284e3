// Owns: questions about the code in the editor: explain it, document it, find its uses; as commands, in the editor's menu and as
// code actions. They are answered in the panel, on the repository as it was read.
import { CodeAction, CodeActionKind, commands, l10n, languages, Range, window } from "vscode";
import type { CodeActionProvider, TextDocument } from "vscode";
import type { TurnView } from "../protocol/qa";
import type { Questions } from "./questions";
import type { Repository } from "./repository";
import type { Disposable } from "./disposable";

const actionKind = CodeActionKind.Empty.append("ringside");

interface SelectionCommand {
  readonly command: string;
  readonly title: () => string;
  /** null: there is nothing to ask about at that place. */
  readonly question: (document: TextDocument, range: Range) => string | null;
  /** Whether there is something; asked at every change of the selection, so it must not copy what is selected. */
  readonly isOffered: (document: TextDocument, range: Range) => boolean;
}

const selectionCommands: readonly SelectionCommand[] = [
  {
    command: "ringside.explain",
    title: () => l10n.t("Ringside: Explain"),
    question: (document, range) => codeQuestion("Explain this code:", document, range),
    isOffered: hasCode,
  },
  {
    command: "ringside.findUses",
    title: () => l10n.t("Ringside: Find Uses"),
    question: (document, range) => {
      const name = nameAt(document, range);
      return name === null ? null : `Where is \`${name}\` used?`;
    },
    isOffered: (document, range) => nameAt(document, range) !== null,
  },
  {
    command: "ringside.document",
    title: () => l10n.t("Ringside: Document"),
    question: (document, range) => codeQuestion("Write a doc comment for this code:", document, range),
    isOffered: hasCode,
  },
];

export function registerSelection(questions: Questions, repository: Repository): Disposable[] {
  const registrations = selectionCommands.map(({ command, question }) =>
    commands.registerCommand(command, () => askAbout(question, questions, repository)),
  );
  const everywhere = { scheme: "*" };
  const provider = languages.registerCodeActionsProvider(everywhere, codeActions, {
    providedCodeActionKinds: [actionKind],
  });
  return [...registrations, provider];
}

/** Ends with the answer; undefined: there was nothing to ask about, or it was not the time. */
async function askAbout(
  question: SelectionCommand["question"],
  questions: Questions,
  repository: Repository,
): Promise<TurnView | undefined> {
  const editor = window.activeTextEditor;
  const text = editor === undefined ? null : question(editor.document, editor.selection);
  if (editor === undefined || text === null) {
    void window.showInformationMessage(l10n.t("Select some code, or put the cursor on a name."));
    return undefined;
  }
  const path = repository.open?.files.pathOf(editor.document.uri) ?? null;
  return questions.ask(text, "high", path === null ? [] : [path]);
}

/** Offered for a selection only: a light bulb at every cursor position would be noise. */
const codeActions: CodeActionProvider = {
  provideCodeActions(document, range) {
    if (range.isEmpty) return [];
    return selectionCommands
      .filter(({ isOffered }) => isOffered(document, range))
      .map(({ command, title }) => {
        const action = new CodeAction(title(), actionKind.append(command.slice("ringside.".length)));
        action.command = { command, title: title() };
        return action;
      });
  },
};

/** The embedded model was trained on whole lines in a fenced block with the language's tag. */
export function codeQuestion(request: string, document: TextDocument, range: Range): string | null {
  const lines = new Range(range.start.line, 0, lastLine(range), Number.MAX_SAFE_INTEGER);
  const code = document.getText(document.validateRange(lines)).trimEnd();
  if (code.trim() === "") return null;
  return `${request}\n\n${fenced(code, tagOf(document))}`;
}

function hasCode(document: TextDocument, range: Range): boolean {
  for (let line = range.start.line; line <= lastLine(range); line++) {
    if (!document.lineAt(line).isEmptyOrWhitespace) return true;
  }
  return false;
}

/** A selection that ends before the first character of a line does not mean that line. */
function lastLine({ start, end }: Range): number {
  return end.line > start.line && end.character === 0 ? end.line - 1 : end.line;
}

function fenced(code: string, tag: string): string {
  const longest = Math.max(2, ...[...code.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${tag}\n${code}\n${fence}`;
}

function tagOf({ fileName, languageId }: TextDocument): string {
  return /\.([A-Za-z0-9]{1,8})$/.exec(fileName)?.[1] ?? languageId;
}

const wholeName = /^[\p{L}_$][\p{L}\p{N}_$]*$/u;

/** The selected name, or the one at the cursor. */
function nameAt(document: TextDocument, range: Range): string | null {
  const selected = range.isSingleLine ? document.getText(range).trim() : "";
  if (wholeName.test(selected)) return selected;
  const word = document.getWordRangeAtPosition(range.start);
  const name = word === undefined ? "" : document.getText(word);
  return wholeName.test(name) ? name : null;
}
