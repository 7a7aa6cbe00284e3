// Owns: the names of states: one for every beginning of a prompt that ends at a chunk boundary, made from everything a state
// depends on. Equal names, equal states; a name says nothing of what was read.
import { createHash } from "node:crypto";

/** A state stands at a multiple of this (house section 3a). */
export const chunkTokens = 64;
/** A SHA-256 as text. */
export const keyCharacters = 64;

/** The key of the state at every chunk boundary, the first of them after 64 tokens. `seed`: model, build and repository. */
export function prefixKeys(seed: string, tokens: Int32Array): string[] {
  const hash = createHash("sha256").update(`${seed}\n`);
  const keys: string[] = [];
  for (let end = chunkTokens; end <= tokens.length; end += chunkTokens) {
    hash.update(bytesOf(tokens.subarray(end - chunkTokens, end)));
    keys.push(hash.copy().digest("hex"));
  }
  return keys;
}

/** The last boundary at or before `position`. */
export function boundaryAt(position: number): number {
  return Math.floor(position / chunkTokens) * chunkTokens;
}

/** Of the keys of a prompt, that of the state at a boundary; undefined for 0 and past the end. */
export function keyAt(keys: readonly string[], boundary: number): string | undefined {
  return keys[boundary / chunkTokens - 1];
}

/** Little-endian on every machine that the addon is built for. */
export function bytesOf(tokens: Int32Array): Uint8Array {
  return new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);
}
