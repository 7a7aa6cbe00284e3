// Owns: what may be read without being asked. In Restricted Mode nothing is, until the user asks a question.
import { workspace } from "vscode";
import { repositoryCharacters } from "../protocol/engine";
import type { PanelState } from "../protocol/qa";

/** Under which what is read of the open folders is kept on the disk; "" where nothing may be: of folders that are not trusted. */
export function repositoryName(): string {
  if (workspaceState() !== "ready") return "";
  const name = (workspace.workspaceFolders ?? []).map(({ uri }) => uri.toString()).join(" ");
  return name.length <= repositoryCharacters ? name : "";
}

export function workspaceState(): PanelState["workspace"] {
  if ((workspace.workspaceFolders ?? []).length === 0) return "none";
  return workspace.isTrusted ? "ready" : "restricted";
}
