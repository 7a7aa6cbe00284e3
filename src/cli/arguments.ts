// Owns: reading a command's options. What is wrong with them is a UsageError, which ends the program with exit code 2.
import { parseArgs } from "node:util";
import type { ParseArgsConfig } from "node:util";
import * as path from "node:path";
import { backendNames, isaNames, kvFormats, maxDeviceMemoryBytes, maxDevices, maxThreads } from "../protocol/engine";
import type { IsaName, LoadRequest } from "../protocol/engine";
import { places } from "./places";

/** Wrong usage of a command; the message says what to change. */
export class UsageError extends Error {}

/** Thrown for --help; the message is the help itself. */
export class HelpRequested extends Error {}

/** No model of the family runs in less. */
const leastDeviceMemoryBytes = 2 ** 26;

type Options = NonNullable<ParseArgsConfig["options"]>;

const helpOption = { help: { type: "boolean", short: "h" } } as const satisfies Options;

/** Options of every command that loads a model. */
export const modelOptions = {
  model: { type: "string" },
  backend: { type: "string" },
  threads: { type: "string" },
  slope: { type: "string" },
  isa: { type: "string" },
  kv: { type: "string" },
  "vram-limit": { type: "string" },
  device: { type: "string" },
  json: { type: "boolean" },
} as const satisfies Options;

/** The rest of the help line of --isa, which two commands have. */
export const isaHelp = `default: the best of this machine; else one of
                       ${isaNames.join(", ")};
                       dotprod and i8mm have run under an emulator only, so they are never the default`;

/** The help lines of the options that only a GPU heeds. */
export const gpuHelp = `  --vram-limit SIZE    the most of the GPU's memory that is taken, such as 8G or 7500M; what does not fit stays
                       in main memory where the model allows it (default: what is free)
  --device N           which GPU, counted from 0 (default: the one with most free memory)`;

export const modelHelp = `  --model DIR          a checkpoint folder; without it, the embedded nano model
  --backend NAME       auto (default: a GPU if the model fits one, else the processor), cpu, cuda
                       or reference
  --threads N          default: the physical cores
  --slope A|B|C        form of the decay slopes (default A)
  --isa NAME           ${isaHelp}
  --kv FORMAT          how keys and values are kept: bf16 (default), f32 or q8
${gpuHelp}
  --json               one JSON value on standard output and nothing else`;

/** Throws UsageError for an unknown option or a wrong number of positionals, HelpRequested for --help. */
export function parseCommand<const T extends Options>(
  argv: readonly string[],
  command: { readonly help: string; readonly options: T; readonly positionals?: readonly [min: number, max: number] },
): ReturnType<typeof parseArgs<{ options: T & typeof helpOption; allowPositionals: true }>> {
  const options = { ...command.options, ...helpOption };
  let parsed: ReturnType<typeof parseArgs<{ options: T & typeof helpOption; allowPositionals: true }>>;
  try {
    parsed = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
  } catch (cause) {
    throw new UsageError(cause instanceof Error ? cause.message : String(cause));
  }
  if ((parsed.values as { help?: boolean }).help === true) throw new HelpRequested(command.help);
  const [min, max] = command.positionals ?? [0, 0];
  if (parsed.positionals.length < min) throw new UsageError(`Something is missing.\n${command.help}`);
  const extra = parsed.positionals[max];
  if (extra !== undefined) throw new UsageError(`Unexpected argument "${extra}".`);
  return parsed;
}

export function integerOption(
  value: string | undefined,
  name: string,
  [min, max]: readonly [min: number, max: number],
  otherwise: number,
): number {
  if (value === undefined) return otherwise;
  const number = /^-?\d+$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isSafeInteger(number) && number >= min && number <= max) return number;
  throw new UsageError(`${name} must be an integer from ${String(min)} to ${String(max)}, not "${value}".`);
}

export function numberOption(
  value: string | undefined,
  name: string,
  [min, max]: readonly [min: number, max: number],
  otherwise: number,
): number {
  if (value === undefined) return otherwise;
  const number = value.trim() === "" ? Number.NaN : Number(value);
  if (Number.isFinite(number) && number >= min && number <= max) return number;
  throw new UsageError(`${name} must be a number from ${String(min)} to ${String(max)}, not "${value}".`);
}

/** A number of bytes with the unit M or G, which are powers of 1,024 as in the names of cards. */
export function sizeOption(
  value: string | undefined,
  name: string,
  [min, max]: readonly [min: number, max: number],
  otherwise: number,
): number {
  if (value === undefined) return otherwise;
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)([MG])(?:i?B)?$/i.exec(value) ?? [];
  const bytes =
    digits === "" ? Number.NaN : Math.floor(Number(digits) * (unit.toUpperCase() === "G" ? 2 ** 30 : 2 ** 20));
  if (bytes >= min && bytes <= max) return bytes;
  const range = `from ${String(min / 2 ** 20)}M to ${String(max / 2 ** 30)}G`;
  throw new UsageError(`${name} must be a size ${range}, such as 8G or 7500M, not "${value}".`);
}

export function choiceOption<T extends string>(
  value: string | undefined,
  name: string,
  choices: readonly T[],
  otherwise: T,
): T {
  if (value === undefined) return otherwise;
  const chosen = choices.find((candidate) => candidate === value);
  if (chosen !== undefined) return chosen;
  throw new UsageError(`${name} must be one of ${choices.join(", ")}, not "${value}".`);
}

/** The load request that {@link modelOptions} describe. */
export function loadRequest(values: {
  readonly model?: string | undefined;
  readonly backend?: string | undefined;
  readonly threads?: string | undefined;
  readonly slope?: string | undefined;
  readonly isa?: string | undefined;
  readonly kv?: string | undefined;
  readonly "vram-limit"?: string | undefined;
  readonly device?: string | undefined;
}): LoadRequest {
  return {
    folder: values.model === undefined ? places.embeddedModel : path.resolve(values.model),
    backend: choiceOption(values.backend, "--backend", backendNames, "auto"),
    threads: integerOption(values.threads, "--threads", [1, maxThreads], 0),
    slopeForm: choiceOption(values.slope, "--slope", ["A", "B", "C"], "A"),
    isa: choiceOption<IsaName | "">(values.isa, "--isa", isaNames, ""),
    kvFormat: choiceOption(values.kv, "--kv", kvFormats, "bf16"),
    deviceMemoryBytes: sizeOption(
      values["vram-limit"],
      "--vram-limit",
      [leastDeviceMemoryBytes, maxDeviceMemoryBytes],
      0,
    ),
    device: integerOption(values.device, "--device", [0, maxDevices - 1], -1),
  };
}
