// Owns: `ringside tokenize`: text on standard input to token ids on standard output.
import { failure } from "../protocol/errors";
import { loadRequest, modelHelp, modelOptions, parseCommand } from "./arguments";
import { withEngine } from "./engine";
import { readStandardInput, writeOut } from "./standardStreams";

const help = `ringside tokenize [options] < TEXT

Prints the token ids of the text on standard input as one JSON list. Spellings of added tokens are plain text.

  --special            recognise added tokens
  --lines              each line of the input is a JSON string; prints one list a line
${modelHelp}`;

export async function tokenizeCommand(arguments_: readonly string[]): Promise<number> {
  const { values } = parseCommand(arguments_, {
    help,
    options: { ...modelOptions, special: { type: "boolean" }, lines: { type: "boolean" } },
  });
  const request = loadRequest(values);
  const input = await readStandardInput();
  const texts = values.lines === true ? jsonLines(input).map(textOf) : [input];
  const ids = await withEngine(async (engine) => {
    await engine.load(request);
    return engine.tokenize(texts, values.special === true);
  });
  await writeOut(ids.map((list) => `${JSON.stringify(list)}\n`).join(""));
  return 0;
}

/** The values of JSON lines; an empty last line does not count. */
export function jsonLines(input: string): readonly { readonly line: number; readonly value: unknown }[] {
  const lines = input.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((text, index) => {
    try {
      return { line: index + 1, value: JSON.parse(text) as unknown };
    } catch {
      throw failure("file-malformed", `standard input, line ${String(index + 1)}`, "one JSON value", "other text");
    }
  });
}

function textOf({ line, value }: { readonly line: number; readonly value: unknown }): string {
  if (typeof value === "string") return value;
  throw failure("file-malformed", `standard input, line ${String(line)}`, "a JSON string", typeof value);
}
