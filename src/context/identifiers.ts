// Owns: which words of a question may be names from the code. Must never change the question.

export interface QuestionNames {
  /** Names written so that they can only be code: in backticks or quotes, or shaped like code. In the order of the question. */
  readonly certain: readonly string[];
  /** Plain words: a name only if the repository defines it. */
  readonly possible: readonly string[];
  /** Code the user selected or pasted, without its fence. */
  readonly code: readonly string[];
}

const longestName = 200;
const mostNames = 24;

const fence = /(^|\n)(`{3,}(?!`)|~{3,}(?!~))[^\n]*\n([\s\S]*?)(?:\n\2`*(?=\n|$)|$)/g;
const inBackticks = /(?<!`)(`+)([^`\n]+?)\1/g;
const inQuotes = /"([^"\n]{2,200})"|“([^”\n]{2,200})”|(?<![\w])'([^'\n]{2,200})'(?![\w])/g;
const codeWord = /[A-Za-z_$][\w$]*(?:(?:\.|::|->|#)[A-Za-z_$][\w$]*)*/g;

const plainWords = new Set(
  (
    "a about after all also an and any are as at be been before between both but by call called calls can class code come comes " +
    "comment constant could define defined defines definition did do doc does each every example explain field file files find " +
    "first for from function functions get gives had handle has have how i if implement implemented implementation in into is it " +
    "its just kind know let like line lines list look made make many me method methods module more most must my name named names " +
    "need no not of on one only or other our out over part please point program purpose repository return returns show signature " +
    "so some source stand stands string such tell that the their them then there these they this those to type types under up us " +
    "use used uses using value variable was way we were what when where which while who why will with within would write you your"
  ).split(" "),
);

export function namesInQuestion(question: string): QuestionNames {
  const code: string[] = [];
  let rest = question.replace(fence, (_all, before: string, _mark, body: string) => {
    if (body.trim() !== "") code.push(body);
    return before + " ";
  });
  const certain = new Set<string>();
  const take = (name: string | undefined): string => {
    const trimmed = name?.trim() ?? "";
    if (trimmed !== "" && trimmed.length <= longestName) {
      certain.add(trimmed);
      for (const part of partsOf(trimmed)) certain.add(part);
    }
    return " ";
  };
  rest = rest.replace(inBackticks, (_all, _mark, name: string) => take(name));
  rest = rest.replace(inQuotes, (_all, a?: string, b?: string, c?: string) => take(a ?? b ?? c));
  const possible = new Set<string>();
  for (const [word] of rest.matchAll(codeWord)) {
    if (isShapedLikeCode(word)) take(word);
    else if (word.length >= 3 && !plainWords.has(word.toLowerCase())) possible.add(word);
  }
  return {
    certain: [...certain].slice(0, mostNames),
    possible: [...possible].filter((name) => !certain.has(name)).slice(0, mostNames),
    code,
  };
}

/** Names in a piece of code worth looking up: not its keywords and short locals. */
export function namesInCode(code: string): string[] {
  const names = new Set<string>();
  for (const [word] of code.matchAll(/[A-Za-z_$][\w$]*/g))
    if (word.length >= 4 && isShapedLikeCode(word)) names.add(word);
  return [...names].slice(0, mostNames);
}

/** `a.b.c()` is looked up as written and by its last name. */
function partsOf(name: string): string[] {
  const call = /^([\w$.:#>-]+)\s*\(.*\)?$/.exec(name)?.[1];
  const whole = call ?? name;
  const parts = whole.split(/\.|::|->|#/).filter((part) => part !== "");
  const last = parts.at(-1);
  const dotted = parts.length > 1 && parts.every((part) => /^[\w$]+[?!]?$/.test(part));
  return [...(call === undefined ? [] : [call]), ...(dotted && last !== undefined && last.length >= 2 ? [last] : [])];
}

function isShapedLikeCode(word: string): boolean {
  return (
    /[a-z0-9][A-Z]|[A-Z]{2,}[a-z]|[\w$](?:\.|::|->|#)[\w$]|[$_]|[A-Za-z]\d/.test(word) ||
    /^[A-Z][A-Z0-9_]{2,}$/.test(word)
  );
}
