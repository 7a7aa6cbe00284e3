// Owns: `ringside detokenize`: token ids on standard input to text on standard output.
import { failure } from "../protocol/errors";
import { loadRequest, modelHelp, modelOptions, parseCommand } from "./arguments";
import { withEngine } from "./engine";
import { readStandardInput, writeOut } from "./standardStreams";
import { jsonLines } from "./tokenize";

const help = `ringside detokenize [options] < IDS

Prints the text of the JSON list of token ids on standard input; with --json as a JSON string.

  --lines              each line of the input is a list; prints one JSON string a line
${modelHelp}`;

export async function detokenizeCommand(arguments_: readonly string[]): Promise<number> {
  const { values } = parseCommand(arguments_, { help, options: { ...modelOptions, lines: { type: "boolean" } } });
  const request = loadRequest(values);
  const input = await readStandardInput();
  const ids =
    values.lines === true
      ? jsonLines(input).map(({ line, value }) => idsOf(value, `standard input, line ${String(line)}`))
      : [idsOf(parsed(input), "standard input")];
  const texts = await withEngine(async (engine) => {
    await engine.load(request);
    return engine.detokenize(ids);
  });
  const asJson = values.json === true || values.lines === true;
  await writeOut(asJson ? texts.map((text) => `${JSON.stringify(text)}\n`).join("") : texts.join(""));
  return 0;
}

/** Throws "file-malformed" when `value` is no list of token ids; `source` names it. */
export function idsOf(value: unknown, source: string): readonly number[] {
  if (!Array.isArray(value)) throw failure("file-malformed", source, "a JSON list of token ids", typeof value);
  return value.map((id: unknown, index) => {
    if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id <= 0x7fffffff) return id;
    throw failure("file-malformed", `${source}, item ${String(index)}`, "a token id", JSON.stringify(id).slice(0, 40));
  });
}

function parsed(input: string): unknown {
  try {
    return JSON.parse(input) as unknown;
  } catch {
    throw failure("file-malformed", "standard input", "a JSON list of token ids", "other text");
  }
}
