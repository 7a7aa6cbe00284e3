// Owns: frames over a duplex byte stream (today a socket pair to a child process), with back pressure.
// Must never look into a message: what a frame holds is validated by its reader.
import type { Duplex } from "node:stream";
import { encodeFrame, FrameDecoder } from "../protocol/frame";
import type { RingsideError } from "../protocol/errors";
import { RingsideFailure } from "../protocol/errors";

/** Above this many unsent bytes a sender waits and a reader stops reading. */
export const bufferLimitBytes = 4 * 1024 * 1024;

export interface FrameListener {
  onValue(value: unknown): void;
  /** Once. `error` is null when the other side closed the stream or close() was called. */
  onClose(error: RingsideError | null): void;
}

export class FrameStream {
  readonly #stream: Duplex;
  readonly #listener: FrameListener;
  readonly #decoder = new FrameDecoder();
  #closed = false;

  constructor(stream: Duplex, listener: FrameListener) {
    this.#stream = stream;
    this.#listener = listener;
    stream.on("data", (chunk: Buffer) => {
      this.#receive(chunk);
    });
    stream.on("drain", () => {
      stream.resume();
    });
    stream.on("end", () => {
      this.#close(null);
    });
    stream.on("close", () => {
      this.#close(null);
    });
    // A broken pipe is how the end of the other process looks from here.
    stream.on("error", () => {
      this.#close(null);
    });
  }

  /** Throws "argument-invalid" for a value too large for a frame; does nothing once the stream is closed. */
  send(value: object): void {
    if (this.#closed) return;
    this.#stream.write(encodeFrame(value));
  }

  get congested(): boolean {
    return this.#stream.writableLength > bufferLimitBytes;
  }

  /** Resolves when there is room to send, or when the stream is closed. */
  async room(): Promise<void> {
    if (this.#closed || !this.congested) return;
    await new Promise<void>((resolve) => {
      const settle = (): void => {
        this.#stream.off("drain", settle);
        this.#stream.off("close", settle);
        resolve();
      };
      this.#stream.on("drain", settle);
      this.#stream.on("close", settle);
    });
  }

  /** Resolves when what was sent has left this process, or cannot any more. Nothing may be sent afterwards. */
  async flushed(): Promise<void> {
    if (this.#closed) return;
    await new Promise<void>((resolve) => {
      this.#stream.once("close", resolve);
      this.#stream.end(resolve);
    });
  }

  close(): void {
    this.#close(null);
  }

  #receive(chunk: Buffer): void {
    if (this.#closed) return;
    try {
      for (const value of this.#decoder.push(chunk)) this.#listener.onValue(value);
    } catch (cause) {
      if (!(cause instanceof RingsideFailure)) throw cause;
      this.#close(cause.error);
      return;
    }
    // A peer that sends but does not read may not make this side hold its answers without bound.
    if (this.congested) this.#stream.pause();
  }

  #close(error: RingsideError | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.destroy();
    this.#listener.onClose(error);
  }
}
