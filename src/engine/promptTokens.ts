// Owns: text → tokens by the rule of house section 3a: each piece by itself, each part of a piece by itself, kept by content.
// Must never recognise an added token inside text: only a `special` part becomes one.
import { createHash } from "node:crypto";
import type { Prompt, PromptPart, PromptPiece } from "../protocol/engine";
import { RingsideFailure } from "../protocol/errors";
import type { NativeModel, NativeResult } from "./addonTypes";

const cacheLimitBytes = 64 * 1024 * 1024;
/** What an entry costs besides its tokens: the key, the array's header, the map's slot. */
const entryOverheadBytes = 256;
/** After this long without a pause the event loop gets a turn, so that a cancel is heard. */
const turnMs = 20;

export function unwrap<T>(result: NativeResult<T>): T {
  if (result.ok) return result.value;
  throw new RingsideFailure(result.error);
}

/** Lets the event loop run between pieces of synchronous work. `check` throws when the work is not wanted any more. */
export class Pacer {
  #since = performance.now();
  readonly #check: () => void;
  constructor(check: () => void) {
    this.#check = check;
  }
  async pause(): Promise<void> {
    if (performance.now() - this.#since < turnMs) return;
    await new Promise((resolve) => setImmediate(resolve));
    this.#since = performance.now();
    this.#check();
  }
}

export class PromptTokens {
  readonly #model: NativeModel;
  /** Least recently used first. */
  readonly #cache = new Map<string, Int32Array>();
  #cachedBytes = 0;

  constructor(model: NativeModel) {
    this.#model = model;
  }

  /** All tokens of the prompt, and where each of its pieces ends. */
  async encode(prompt: Prompt, pacer: Pacer): Promise<{ tokens: Int32Array; ends: readonly number[] }> {
    const runs: Int32Array[] = [];
    const ends: number[] = [];
    let total = 0;
    for (const piece of prompt.pieces) {
      for (const run of this.#encodePiece(piece)) {
        runs.push(run);
        total += run.length;
      }
      ends.push(total);
      await pacer.pause();
    }
    const tokens = new Int32Array(total);
    let filled = 0;
    for (const run of runs) {
      tokens.set(run, filled);
      filled += run.length;
    }
    return { tokens, ends };
  }

  /** Plain characters, added tokens off. */
  encodeText(text: string): Int32Array {
    if (text === "") return new Int32Array(0);
    const key = createHash("sha256").update(text, "utf8").digest("base64");
    const known = this.#cache.get(key);
    if (known !== undefined) {
      this.#cache.delete(key);
      this.#cache.set(key, known);
      return known;
    }
    const tokens = unwrap(this.#model.encode(text));
    this.#keep(key, tokens);
    return tokens;
  }

  *#encodePiece(piece: PromptPiece): Generator<Int32Array> {
    for (const part of this.#partsForModel(piece.parts)) {
      yield typeof part === "number" ? Int32Array.of(part) : this.encodeText(part);
    }
  }

  /** Ids and texts in turn; an added token that this model lacks is text, joined with the text beside it before encoding. */
  #partsForModel(parts: readonly PromptPart[]): (number | string)[] {
    const merged: (number | string)[] = [];
    let joinNext = false;
    for (const part of parts) {
      const id = "special" in part ? this.#model.addedId(part.special) : -1;
      if (id >= 0) {
        merged.push(id);
        joinNext = false;
        continue;
      }
      const missing = "special" in part;
      const text = missing ? part.special : part.text;
      const last = merged.at(-1);
      if (typeof last === "string" && (joinNext || missing)) merged[merged.length - 1] = last + text;
      else merged.push(text);
      joinNext = missing;
    }
    return merged;
  }

  #keep(key: string, tokens: Int32Array): void {
    this.#cache.set(key, tokens);
    this.#cachedBytes += tokens.byteLength + entryOverheadBytes;
    for (const [oldest, held] of this.#cache) {
      if (this.#cachedBytes <= cacheLimitBytes) break;
      this.#cache.delete(oldest);
      this.#cachedBytes -= held.byteLength + entryOverheadBytes;
    }
  }
}
