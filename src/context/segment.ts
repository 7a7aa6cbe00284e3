// Owns: how one file stands in the prompt, and what that costs. The tags are added tokens of models that have them.
import type { KeepReason } from "../protocol/qa";
import type { ScannedFile } from "./contentCache";

export const fileOpenTag = '<file path="';
export const fileCloseTag = "</file>";
/** Between two files. */
export const fileSeparator = "\n";

/** Stands in an outline for the lines that it leaves out. */
export const elision = "…";
const outlineNotice = `(Outline of this file: its signatures; ${elision} stands for lines that are not shown.)`;

export interface ContextSegment {
  readonly file: ScannedFile;
  readonly path: string;
  /** As packed: line ends "\n", no blank space at the end. */
  readonly text: string;
  readonly mode: "full" | "outline";
  /** The file's whole text: what an outline's lines are lines of. */
  readonly source: string;
  /** The tags and the separator included. */
  readonly tokens: number;
  readonly kind: "base" | "supplement";
  readonly reason: KeepReason;
}

/** What stands between the two tags. */
export function segmentBody(path: string, text: string): string {
  return `${path}">\n${text}\n`;
}

/** The packed text of a file of which only the outline is read. */
export function outlineBody(outline: string): string {
  return `${outlineNotice}\n${outline}`;
}
