// Owns: what .gitignore and .ringsideignore leave out, nested ones included, with git's precedence.
// Must never touch files: the walker hands over the text of the rule files it meets.
import ignore from "ignore";
import { defaultIgnoreRules } from "./exclusions";

export const ruleFileNames = [".gitignore", ".ringsideignore"] as const;

/**
 * The rules that hold in one directory. Rules of deeper files are written as rules of the root (their directory in front) and
 * put after those of the directories above, so one matcher with "the last match wins" gives git's precedence.
 */
export class IgnoreRules {
  readonly #matcher;

  private constructor(private readonly patterns: readonly string[]) {
    this.#matcher = ignore({ ignorecase: false, allowRelativePaths: true }).add([...patterns]);
  }

  static readonly defaults = new IgnoreRules(rulesAtRoot("", defaultIgnoreRules));
  static readonly none = new IgnoreRules([]);

  /** Adds the rule files of `directory`, later texts winning over earlier ones. */
  with(directory: string, texts: readonly string[]): IgnoreRules {
    const added = texts.flatMap((text) => rulesAtRoot(directory, text));
    return added.length === 0 ? this : new IgnoreRules([...this.patterns, ...added]);
  }

  ignoresFile(path: string): boolean {
    return this.#matcher.ignores(path);
  }

  ignoresDirectory(path: string): boolean {
    return this.#matcher.ignores(`${path}/`);
  }
}

function rulesAtRoot(directory: string, text: string): string[] {
  const rules: string[] = [];
  for (const written of text.replace(/^\uFEFF/, "").split(/\r?\n/)) {
    const line = withoutTrailingSpaces(written);
    if (line === "" || line.startsWith("#")) continue;
    rules.push(directory === "" ? line : ruleAtRoot(directory, line));
  }
  return rules;
}

/** A backslash keeps the space after it. Counted from the end: a pattern would take quadratic time on a line of spaces. */
function withoutTrailingSpaces(line: string): string {
  let end = line.length;
  while (line[end - 1] === " ") end--;
  if (end === line.length) return line;
  let backslashes = 0;
  while (line[end - 1 - backslashes] === "\\") backslashes++;
  return line.slice(0, backslashes % 2 === 1 ? end + 1 : end);
}

function ruleAtRoot(directory: string, rule: string): string {
  const negated = rule.startsWith("!");
  const body = negated ? rule.slice(1) : rule;
  const place = `/${directory.replace(/[\\*?[\]! #]/g, "\\$&")}`;
  const slash = body.indexOf("/");
  // A slash at the start or in the middle ties a rule to its directory; without one it holds at every depth below.
  const tied = slash >= 0 && slash < body.length - 1;
  const moved = tied ? `${place}/${body.replace(/^\//, "")}` : `${place}/**/${body}`;
  return negated ? `!${moved}` : moved;
}
