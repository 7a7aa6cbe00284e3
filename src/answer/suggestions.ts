// Owns: the questions that an empty panel offers, made from symbols of the files that are read. Must never offer a question whose
// answer is not in those files.
import { definitionsIn } from "../context/definitions";
import type { Definition } from "../context/definitions";
import { fileClass } from "../context/rank";
import type { ContextSegment } from "../context/segment";

interface Symbol extends Definition {
  readonly path: string;
  /** Lines until the next definition of the same file: how long its code is at most. */
  readonly room: number;
  readonly hasComment: boolean;
}

const leastNameCharacters = 4;
const showableLines = 30;

/** Three, as far as there are symbols; the same for the same files. */
export function suggestQuestions(segments: readonly ContextSegment[]): string[] {
  const symbols = distinctSymbols(segments);
  const functions = symbols.filter(({ kind }) => kind === "function");
  const chosen: Symbol[] = [];
  const choose = (pool: readonly Symbol[]): string | undefined => {
    const fresh = pool.filter((symbol) => !chosen.includes(symbol));
    const elsewhere = fresh.filter(({ path }) => !chosen.some((other) => other.path === path));
    const symbol = elsewhere[0] ?? fresh[0] ?? pool[0];
    if (symbol !== undefined) chosen.push(symbol);
    return symbol?.name;
  };
  const commented = functions.filter(({ hasComment }) => hasComment);
  const short = functions.filter(({ room }) => room >= 3 && room <= showableLines);
  const questions = [
    ["Where is `", choose(symbols.filter(({ kind }) => kind !== "value")) ?? choose(symbols), "` defined?"],
    ["What does `", choose(commented) ?? choose(functions), "` do?"],
    ["Show the code of `", choose(short) ?? choose(functions), "`"],
  ];
  return questions.filter(([, name]) => name !== undefined).map((parts) => parts.join(""));
}

/** Symbols whose name is defined once: a question about them has one answer. Longer names first, they say more. */
function distinctSymbols(segments: readonly ContextSegment[]): Symbol[] {
  const byName = new Map<string, Symbol[]>();
  for (const { file, path, text, mode } of segments) {
    if (fileClass(file) > 1 || mode === "outline") continue;
    const lines = text.split("\n");
    const definitions = definitionsIn(path, text);
    for (const [index, definition] of definitions.entries()) {
      if (definition.name.length < leastNameCharacters) continue;
      const room = (definitions[index + 1]?.line ?? lines.length + 1) - definition.line;
      const hasComment = /^\s*(?:\*\/|\/\/|#|"""|--|\/\*\*.*\*\/)/.test(lines[definition.line - 2] ?? "");
      const symbol = { ...definition, path, room, hasComment };
      byName.set(definition.name, [...(byName.get(definition.name) ?? []), symbol]);
    }
  }
  const order = new Map(segments.map(({ path }, index) => [path, index]));
  return [...byName.values()]
    .flatMap((symbols) => (symbols.length === 1 ? symbols : []))
    .sort(
      (a, b) =>
        Math.min(b.name.length, 24) - Math.min(a.name.length, 24) ||
        (order.get(a.path) ?? 0) - (order.get(b.path) ?? 0) ||
        a.line - b.line,
    );
}
