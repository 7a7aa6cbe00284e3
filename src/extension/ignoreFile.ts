// Owns: lines of .ringsideignore that mean one path and no other. Knows nothing of VS Code.
export const ignoreFileName = ".ringsideignore";

/** `path` as seen from the folder of the ignore file; a folder's ends with "/". Null: no line can say it. */
export function ignoreLine(path: string): string | null {
  if (path === "" || path === "/" || /[\r\n]/.test(path)) return null;
  // The slash at the beginning binds the line to its folder, and takes their meaning from "#" and "!".
  return `/${path.replace(/[\\*?[\]]/g, "\\$&").replace(/ +(?=\/?$)/, (spaces) => "\\ ".repeat(spaces.length))}`;
}

/** The text with those lines added that it does not have yet. */
export function withLines(text: string, lines: readonly string[]): string {
  const present = new Set(text.split(/\r?\n/));
  const added = [...new Set(lines)].filter((line) => !present.has(line));
  if (added.length === 0) return text;
  const before = text === "" || text.endsWith("\n") ? text : `${text}\n`;
  return `${before}${added.join("\n")}\n`;
}
