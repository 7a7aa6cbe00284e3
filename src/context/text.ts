// Owns: how the bytes of a repository file become the text that is packed, searched and quoted.
// Must never change a line's number or visible characters: citations point into the file on disk through this text.

export interface DecodedText {
  readonly text: string;
  /** Bidi controls and zero-width characters that stay in the text: they can make code read differently from how it runs. */
  readonly hiddenCharacters: number;
  /** Unicode tag characters (U+E0000–E007F), left out because they carry invisible text and nothing else. */
  readonly removedCharacters: number;
}

/** A text with more undecodable characters than this share is treated as binary. */
const undecodableShare = 0.01;

const hiddenPattern =
  /[\u061C\u200B\u200E\u200F\u202A-\u202E\u2060\u2066-\u2069\uFEFF]|(?<=\p{ASCII})[\u200C\u200D]|[\u200C\u200D](?=\p{ASCII})/gu;
const tagPattern = /[\u{E0000}-\u{E007F}]/gu;
const nonAscii = /\P{ASCII}/u;

/** Returns null for what is not text. Line ends become "\n" (as an editor counts lines); blank space at the end is dropped. */
export function decodeText(bytes: Uint8Array): DecodedText | null {
  const decoded = decodeCharacters(bytes);
  if (decoded === null) return null;
  let text = (decoded.includes("\r") ? decoded.replace(/\r\n?/g, "\n") : decoded).trimEnd();
  // Every other character takes more bytes than it counts, but for the one that stands for what is no character.
  const isAscii = decoded.length === bytes.length && !decoded.includes("\uFFFD");
  if (isAscii || !nonAscii.test(text)) return { text, hiddenCharacters: 0, removedCharacters: 0 };
  const removedCharacters = text.match(tagPattern)?.length ?? 0;
  if (removedCharacters > 0) text = text.replace(tagPattern, "").trimEnd();
  return { text, hiddenCharacters: text.match(hiddenPattern)?.length ?? 0, removedCharacters };
}

function decodeCharacters(bytes: Uint8Array): string | null {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  if (bytes.includes(0)) return null;
  const text = new TextDecoder("utf-8").decode(bytes); // Drops a byte order mark.
  const firstUndecodable = text.indexOf("\uFFFD");
  if (firstUndecodable < 0) return text;
  let undecodable = 0;
  for (let at = firstUndecodable; at >= 0; at = text.indexOf("\uFFFD", at + 1)) undecodable++;
  return undecodable > Math.max(3, text.length * undecodableShare) ? null : text;
}

/** 1-based number of the line that holds the character at `offset`. */
export function lineAt(text: string, offset: number): number {
  let line = 1;
  for (let at = text.indexOf("\n"); at >= 0 && at < offset; at = text.indexOf("\n", at + 1)) line++;
  return line;
}
