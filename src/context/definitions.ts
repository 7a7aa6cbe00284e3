// Owns: where a source text defines a name, by the shape of its lines. Must never claim to parse: a miss costs a rank, not an answer.

export interface Definition {
  readonly name: string;
  /** 1-based. */
  readonly line: number;
  readonly kind: "function" | "type" | "value";
  /** Stands at the left margin. */
  readonly isTopLevel: boolean;
}

interface Pattern {
  readonly kind: Definition["kind"];
  /** Group 1 is the name; tested against one line. */
  readonly line: RegExp;
}

const longestLineCharacters = 400;

const notNames = new Set(
  (
    "if else for while do switch case catch finally function return new typeof instanceof in of await yield throw try with " +
    "class extends super this import export from default def lambda and or not is None True False null true false undefined " +
    "fn impl let const var static sizeof match loop unless until then end begin rescue elsif when foreach using lock"
  ).split(" "),
);

// No two neighbours in a pattern may both match a run of spaces: where the rest then fails, the time grows with its square or worse.
const id = String.raw`([A-Za-z_$][\w$]*)`;

const javascript: readonly Pattern[] = [
  {
    kind: "function",
    line: new RegExp(String.raw`^\s*(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:async\s+)?function\s*\*?\s*${id}`),
  },
  {
    kind: "type",
    line: new RegExp(
      String.raw`^\s*(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:const\s+)?(?:class|interface|enum|namespace|module|type)\s+${id}\s*(?:[<{=]|extends\b|implements\b|$)`,
    ),
  },
  {
    kind: "function",
    line: new RegExp(
      String.raw`^\s*(?:export\s+)?(?:const|let|var)\s+${id}\s*(?::[^=]+)?=\s*(?=\S)(?:async\s*(?=\S))?(?:function\b|\(?[\w\s,{}[\]=.:?<>|"']*(?:\)\s*)?(?::[^=]+)?=>)`,
    ),
  },
  { kind: "value", line: new RegExp(String.raw`^(?:\s{0,4})(?:export\s+)?(?:declare\s+)?(?:const|let|var)\s+${id}\b`) },
  {
    kind: "function",
    line: new RegExp(
      String.raw`^\s+(?:(?:public|private|protected|static|readonly|override|async|get|set)\s+|\*\s*|#)*${id}\s*(?:<[^>]*>)?\([^;]*\)?\s*(?::[^={]+)?\{\s*$`,
    ),
  },
  {
    kind: "function",
    line: new RegExp(
      String.raw`^\s*[\w$.]+\.${id}\s*=\s*(?=\S)(?:async\s*(?=\S))?(?:function\b|\(?[\w\s,]*(?:\)\s*)?=>)`,
    ),
  },
  { kind: "value", line: new RegExp(String.raw`^\s*(?:module\.)?exports\.${id}\s*=`) },
  { kind: "function", line: new RegExp(String.raw`^\s+${id}\s*:\s*(?:async\s*)?function\b`) },
];

const python: readonly Pattern[] = [
  { kind: "function", line: new RegExp(String.raw`^\s*(?:async\s+)?def\s+${id}`) },
  { kind: "type", line: new RegExp(String.raw`^\s*class\s+${id}`) },
  { kind: "value", line: new RegExp(String.raw`^${id}\s*(?::[^=]+)?=[^=]`) },
];

const go: readonly Pattern[] = [
  { kind: "function", line: new RegExp(String.raw`^func\s+(?:\([^)]*\)\s*)?${id}\s*[[(]`) },
  { kind: "type", line: new RegExp(String.raw`^type\s+${id}`) },
  { kind: "value", line: new RegExp(String.raw`^(?:var|const)\s+${id}`) },
];

const rust: readonly Pattern[] = [
  {
    kind: "function",
    line: new RegExp(
      String.raw`^\s*(?:pub(?:\([^)]*\))?\s+)?(?:default\s+)?(?:const\s+)?(?:async\s+)?(?:unsafe\s+)?(?:extern\s+"[^"]*"\s+)?fn\s+${id}`,
    ),
  },
  {
    kind: "type",
    line: new RegExp(
      String.raw`^\s*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:struct|enum|trait|union|type|mod)\s+${id}`,
    ),
  },
  { kind: "value", line: new RegExp(String.raw`^\s*(?:pub(?:\([^)]*\))?\s+)?(?:const|static)\s+(?:mut\s+)?${id}`) },
  { kind: "function", line: new RegExp(String.raw`^\s*macro_rules!\s*${id}`) },
];

const c: readonly Pattern[] = [
  { kind: "value", line: new RegExp(String.raw`^\s*#\s*define\s+${id}`) },
  {
    kind: "type",
    line: new RegExp(
      String.raw`^\s*(?:typedef\s+)?(?:struct|class|enum(?:\s+class)?|union|namespace)\s+${id}\s*(?:final\s*)?(?:[:{]|$)`,
    ),
  },
  { kind: "type", line: new RegExp(String.raw`^\s*using\s+${id}\s*=`) },
  { kind: "type", line: new RegExp(String.raw`^\s*typedef\b.*\b${id}\s*;\s*$`) },
  { kind: "type", line: new RegExp(String.raw`^\}\s*${id}\s*;\s*$`) },
  { kind: "function", line: new RegExp(String.raw`^[A-Za-z_][\w\s*&:<>,~]*?[\s*&:~]${id}\s*\([^;]*$`) },
];

const ruby: readonly Pattern[] = [
  { kind: "function", line: /^\s*def\s+(?:self\.)?([A-Za-z_]\w*[?!]?)/ },
  { kind: "type", line: /^\s*(?:class|module)\s+(?:[\w:]*::)?([A-Z]\w*)/ },
  { kind: "value", line: /^\s*([A-Z][A-Z0-9_]+)\s*=/ },
];

/** Java, Kotlin, C#, Swift, PHP, Scala, Dart, shell and what else looks like them. */
const others: readonly Pattern[] = [
  {
    kind: "type",
    line: new RegExp(
      String.raw`^\s*(?:[a-z]+\s+)*(?:class|interface|enum|record|struct|trait|protocol|object|extension|typealias)\s+${id}`,
    ),
  },
  {
    kind: "function",
    line: new RegExp(
      String.raw`^\s*(?:[a-z]+\s+)*(?:fun|func|function|def|sub|proc)\s+(?:<[^>]*>\s*)?(?:[\w.]+\.)?${id}`,
    ),
  },
  {
    kind: "function",
    line: new RegExp(
      String.raw`^\s+(?:(?:public|private|protected|internal|static|final|abstract|override|virtual|async|synchronized)\s+)+[\w<>[\],.?\s]*?\b${id}\s*\([^;]*$`,
    ),
  },
  { kind: "function", line: new RegExp(String.raw`^${id}\s*\(\)\s*\{`) },
  { kind: "value", line: new RegExp(String.raw`^\s*(?:[a-z]+\s+)*(?:val|const)\s+${id}`) },
];

const byExtension: Readonly<Record<string, readonly Pattern[]>> = {
  ...of(javascript, "js jsx mjs cjs ts tsx mts cts vue svelte"),
  ...of(python, "py pyi pyx"),
  ...of(go, "go"),
  ...of(rust, "rs"),
  ...of(c, "c h cc cpp cxx hh hpp hxx m mm cu cuh inl"),
  ...of(ruby, "rb rake"),
  ...of(others, "java kt kts cs swift php scala dart sh bash zsh lua groovy pl ex exs"),
};

function of(patterns: readonly Pattern[], extensions: string): Record<string, readonly Pattern[]> {
  return Object.fromEntries(extensions.split(" ").map((extension) => [extension, patterns]));
}

export function extensionOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const dot = name.lastIndexOf(".");
  return dot <= 0 ? "" : name.slice(dot + 1).toLowerCase();
}

/** Whether definitions can be told from uses in this file at all. */
export function isSource(path: string): boolean {
  return byExtension[extensionOf(path)] !== undefined;
}

/** In the order of the lines; at most one definition a line. */
export function definitionsIn(path: string, text: string): Definition[] {
  const patterns = byExtension[extensionOf(path)];
  if (patterns === undefined) return [];
  const found: Definition[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const definition = definitionOn(line, patterns);
    if (definition !== undefined) found.push({ ...definition, line: index + 1 });
  }
  return found;
}

function definitionOn(line: string, patterns: readonly Pattern[]): Omit<Definition, "line"> | undefined {
  if (line.length > longestLineCharacters) return undefined;
  for (const { kind, line: pattern } of patterns) {
    const name = pattern.exec(line)?.[1];
    if (name !== undefined && name !== "" && !notNames.has(name)) return { name, kind, isTopLevel: !/^\s/.test(line) };
  }
  return undefined;
}
