// Owns: how one file stands in the prompt, and what that costs. The tags are added tokens of models that have them.
import type { KeepReason } from "../protocol/qa";
import type { Change } from "./baseLayout";
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

/** What stands between the head of a prompt and its question: a file, or what became of one. */
export interface PromptSegment {
  readonly kind: "base" | "delta" | "supplement";
  /** Of a delta, what stands before the file: everything since the piece before. Else "". */
  readonly note: string;
  readonly file: { readonly path: string; readonly text: string } | null;
}

export function fileSegment(
  kind: "base" | "supplement",
  { path, text }: { readonly path: string; readonly text: string },
): PromptSegment {
  return { kind, note: "", file: { path, text } };
}

export function deltaSegment(change: Change): PromptSegment {
  const kind = "delta";
  switch (change.change) {
    case "text": {
      const { path, text } = change.file;
      const note = change.replaces ? `\n\nThe file ${oneLine(path)} was changed. It now reads:\n` : fileSeparator;
      return { kind, note, file: { path, text } };
    }
    case "gone":
      return { kind, note: `\n\nThe file ${oneLine(change.path)} was deleted.`, file: null };
    case "moved":
      return { kind, note: `\n\nThe file ${oneLine(change.path)} is now ${oneLine(change.to)}.`, file: null };
  }
}

/** A name of a repository must not look like several lines of the prompt. */
export function oneLine(name: string): string {
  return name.replace(/\p{Cc}+/gu, " ");
}
