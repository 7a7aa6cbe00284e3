// Owns: what may be read without being asked. In Restricted Mode nothing is, until the user asks a question.
import { workspace } from "vscode";
import type { PanelState } from "../protocol/qa";

export function workspaceState(): PanelState["workspace"] {
  if ((workspace.workspaceFolders ?? []).length === 0) return "none";
  return workspace.isTrusted ? "ready" : "restricted";
}
