// Owns: what the engine's tests need: the host bundled from the sources, the built addon, and a tiny model with a tokenizer.
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { after } from "node:test";
import * as esbuild from "esbuild";
import { createEngineClient } from "../../src/engine/client";
import type { EngineProcessOptions } from "../../src/engine/supervisor";
import { RingsideFailure } from "../../src/protocol/errors";
import type { EnginePort } from "../../src/protocol/engine";

export const root = path.join(__dirname, "..", "..");

const builtAddon = path.join(root, "dist", "native", "ringside.node");
const shippedNano = path.join(root, "media", "nano");
/** RINGSIDE_ADDON names an addon built elsewhere, for work on the engine; NANO_DIR the nano model while the checkout lacks its own. */
export const addonPath = process.env["RINGSIDE_ADDON"] ?? builtAddon;
/** Where the native tests' own libraries lie. */
export const nativeBuild =
  process.env["RINGSIDE_ADDON"] === undefined ? path.join(root, "build", "native") : path.dirname(addonPath);
export const nanoFolder = existsSync(shippedNano) ? shippedNano : (process.env["NANO_DIR"] ?? shippedNano);

const scratch = mkdtempSync(path.join(tmpdir(), "ringside-engine-test-"));
const engines: EnginePort[] = [];
after(async () => {
  await Promise.all(engines.map((engine) => engine.stop()));
  rmSync(scratch, { recursive: true, force: true });
});

export function scratchFolder(name: string): string {
  return mkdtempSync(path.join(scratch, `${name}-`));
}

export function bundle(entry: string, outfile: string): string {
  esbuild.buildSync({
    entryPoints: [path.join(root, entry)],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    external: ["*.node"],
    logLevel: "error",
  });
  return outfile;
}

let bundledHost: string | null = null;
export function hostScript(): string {
  bundledHost ??= bundle("src/engine/host.ts", path.join(scratch, "engineHost.js"));
  return bundledHost;
}

export function newEngine(options: Partial<EngineProcessOptions> = {}): EnginePort {
  const engine = createEngineClient({ hostScript: hostScript(), addonPath, ...options });
  engines.push(engine);
  return engine;
}

/** Added tokens of the tiny tokenizer, ids from 0. */
const addedTokens = ["<|endoftext|>", "<|role_end|>", "<role>", "</role>", "<think>", "</think>"];

/** The golden tiny weights with a tokenizer of bytes and three merges, written where a test may spoil them. */
export function tinyModel(): string {
  const folder = scratchFolder("tiny");
  const golden = path.join(root, "test", "golden", "tiny-silu");
  for (const file of ["config.json", "model.safetensors"]) {
    copyFileSync(path.join(golden, file), path.join(folder, file));
  }
  writeFileSync(path.join(folder, "tokenizer.json"), JSON.stringify(tinyTokenizer()));
  return folder;
}

function tinyTokenizer(): object {
  const merges = [
    ["a", "b"],
    ["ab", "c"],
    ["Ġ", "a"],
  ] as const;
  const words = [...addedTokens, ...byteAlphabet(), ...merges.map(([left, right]) => left + right)];
  return {
    version: "1.0",
    added_tokens: addedTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: {
            Regex:
              "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
          },
          behavior: "Isolated",
          invert: false,
        },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      merges,
    },
  };
}

/** The characters that stand for the 256 bytes in a byte-level vocabulary (GPT-2's table). */
function byteAlphabet(): string[] {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

export function kindOf(cause: unknown): string {
  return cause instanceof RingsideFailure ? cause.error.kind : String(cause);
}

/** The kind of the failure a promise ends with; "resolved" when it does not fail. */
export async function failureKind(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => "resolved", kindOf);
}

/** Changes one file of a model folder. */
export function spoil(folder: string, file: string, change: (bytes: Buffer) => Buffer | string): void {
  mkdirSync(folder, { recursive: true });
  const target = path.join(folder, file);
  writeFileSync(target, change(readFileSync(target)));
}
