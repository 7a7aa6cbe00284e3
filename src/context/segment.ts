// Owns: how one file stands in the prompt, and what that costs. The tags are added tokens of models that have them.
import type { KeepReason } from "../protocol/qa";
import type { ScannedFile } from "./contentCache";

export const fileOpenTag = '<file path="';
export const fileCloseTag = "</file>";
/** Between two files. */
export const fileSeparator = "\n";

export interface ContextSegment {
  readonly file: ScannedFile;
  readonly path: string;
  /** As packed: line ends "\n", no blank space at the end. */
  readonly text: string;
  /** The tags and the separator included. */
  readonly tokens: number;
  readonly kind: "base" | "supplement";
  readonly reason: KeepReason;
}

/** What stands between the two tags. */
export function segmentBody(path: string, text: string): string {
  return `${path}">\n${text}\n`;
}
