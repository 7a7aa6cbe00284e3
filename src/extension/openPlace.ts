// Owns: opening a place of the repository in an editor. Takes paths from the extension's own data only, never from a page.
import { l10n, Range, Selection, TextEditorRevealType, window } from "vscode";
import type { WorkspaceRepository } from "./repoFiles";

/** `startLine` 0: the file as a whole. Lines are 1-based and inclusive. */
export interface Place {
  readonly path: string;
  readonly startLine: number;
  readonly endLine: number;
}

/** `preserveFocus`: who goes through a list with the keys stays in it. */
export async function openPlace(
  files: WorkspaceRepository,
  { path, startLine, endLine }: Place,
  { preserveFocus = false } = {},
): Promise<void> {
  try {
    const editor = await window.showTextDocument(files.uri(path), { preview: true, preserveFocus });
    if (startLine === 0) return;
    const { document } = editor;
    // The file may have become shorter since it was read.
    const first = Math.min(startLine, document.lineCount) - 1;
    const last = Math.min(Math.max(endLine, startLine), document.lineCount) - 1;
    const range = new Range(first, 0, last, document.lineAt(last).range.end.character);
    editor.selection = new Selection(range.start, range.end);
    editor.revealRange(range, TextEditorRevealType.InCenterIfOutsideViewport);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    void window.showWarningMessage(l10n.t("{0} cannot be opened: {1}", path, reason));
  }
}
