// Owns: frames on a byte stream: a length of four bytes (little-endian), then that many bytes of UTF-8 JSON.
// Must never buffer more than one frame's limit, nor guess where the next frame begins after a bad one.
import { failure } from "./errors";

export const frameLimitBytes = 8 * 1024 * 1024;
const headerBytes = 4;

/** Throws "argument-invalid" when the value is too large for one frame. */
export function encodeFrame(value: object): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify(value));
  if (body.length > frameLimitBytes) {
    throw failure("argument-invalid", "message", `at most ${String(frameLimitBytes)} bytes`, String(body.length));
  }
  const frame = new Uint8Array(headerBytes + body.length);
  new DataView(frame.buffer).setUint32(0, body.length, true);
  frame.set(body, headerBytes);
  return frame;
}

/** Turns chunks of any size into the values of the frames they complete. Once it has thrown it must be thrown away. */
export class FrameDecoder {
  readonly #chunks: Uint8Array[] = [];
  #heldBytes = 0;
  /** Length of the body that is awaited; null: the header is. */
  #bodyBytes: number | null = null;

  push(bytes: Uint8Array): unknown[] {
    if (bytes.length > 0) {
      this.#chunks.push(bytes);
      this.#heldBytes += bytes.length;
    }
    const values: unknown[] = [];
    for (;;) {
      if (this.#bodyBytes === null) {
        if (this.#heldBytes < headerBytes) return values;
        const header = this.#take(headerBytes);
        const length = new DataView(header.buffer, header.byteOffset).getUint32(0, true);
        if (length === 0 || length > frameLimitBytes) {
          throw failure("frame-invalid", "frame length", `1 to ${String(frameLimitBytes)} bytes`, String(length));
        }
        this.#bodyBytes = length;
      }
      if (this.#heldBytes < this.#bodyBytes) return values;
      const body = this.#take(this.#bodyBytes);
      this.#bodyBytes = null;
      values.push(parseBody(body));
    }
  }

  /** Chunks are joined only when a header or body is complete, so that a frame in many small pieces costs no more than its bytes. */
  #take(count: number): Uint8Array {
    this.#heldBytes -= count;
    const first = this.#chunks[0];
    if (first !== undefined && first.length > count) {
      this.#chunks[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const joined = new Uint8Array(count);
    let filled = 0;
    let used = 0;
    while (filled < count) {
      const chunk = this.#chunks[used];
      if (chunk === undefined) break;
      const part = chunk.subarray(0, count - filled);
      joined.set(part, filled);
      filled += part.length;
      if (part.length === chunk.length) used += 1;
      else this.#chunks[used] = chunk.subarray(part.length);
    }
    this.#chunks.splice(0, used);
    return joined;
  }
}

function parseBody(body: Uint8Array): unknown {
  let json: string;
  try {
    json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw failure("frame-invalid", "frame body", "UTF-8", `${String(body.length)} bytes that are not`);
  }
  try {
    return JSON.parse(json) as unknown;
  } catch {
    throw failure("frame-invalid", "frame body", "JSON", `${String(body.length)} bytes that are not`);
  }
}
