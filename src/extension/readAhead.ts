// Owns: when the repository is read without a question: only while nothing else is to be done, where reading is allowed and the
// power for it is there. Knows nothing of VS Code. Must never keep a question waiting: whoever asks stops the reading first.
import type { Disposable } from "./disposable";

export const readAheadModes = ["on", "onPower", "off"] as const;
export type ReadAheadMode = (typeof readAheadModes)[number];

export interface ReadAheadParts {
  readonly mode: () => ReadAheadMode;
  /** A trusted folder is open, and no question runs. */
  readonly mayRead: () => boolean;
  readonly onBattery: () => Promise<boolean>;
  /**
   * Reads; ends when it is through or was stopped, and tells which. Must not reject. `isSettled`: nothing has happened for so long
   * that there is time to read changed files in the place of their old copies, and not only behind them.
   */
  readonly read: (isSettled: boolean) => Promise<boolean>;
  /** From the last change or key to the reading. */
  readonly quietMs?: number;
  /** From a reading to the one that finds everything settled. */
  readonly settledMs?: number;
  /** How soon a machine on its battery is asked again. */
  readonly batteryMs?: number;
}

export class ReadAhead implements Disposable {
  readonly #parts: ReadAheadParts;
  readonly #quietMs: number;
  readonly #settledMs: number;
  readonly #batteryMs: number;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isReading = false;
  /** Something changed while it read. */
  #isBehind = false;
  #isPaused = false;
  /** What the timer is for. */
  #waitsToSettle = false;

  constructor(parts: ReadAheadParts) {
    this.#parts = parts;
    this.#quietMs = parts.quietMs ?? 2_500;
    this.#settledMs = parts.settledMs ?? 60_000;
    this.#batteryMs = parts.batteryMs ?? 60_000;
  }

  /** There may be something to read: a file changed, a question ended, a folder was opened. */
  wake(): void {
    if (this.#isPaused) return;
    if (this.#isReading) this.#isBehind = true;
    else this.#schedule(this.#quietMs, false);
  }

  /** The user is typing: what waits goes on waiting. */
  postpone(): void {
    if (this.#timer !== null)
      this.#schedule(this.#waitsToSettle ? this.#settledMs : this.#quietMs, this.#waitsToSettle);
  }

  /** The user stopped the reading: not again until `resume`. */
  pause(): void {
    this.#isPaused = true;
    this.#isBehind = false;
    this.#cancelTimer();
  }

  resume(): void {
    this.#isPaused = false;
    this.wake();
  }

  #schedule(afterMs: number, isSettled: boolean): void {
    this.#cancelTimer();
    this.#waitsToSettle = isSettled;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#read(isSettled);
    }, afterMs);
  }

  async #read(isSettled: boolean): Promise<void> {
    const { mode, mayRead, onBattery, read } = this.#parts;
    if (mode() === "off" || !mayRead()) return;
    this.#isReading = true;
    let isThrough = false;
    try {
      if (mode() === "onPower" && (await onBattery())) {
        this.#schedule(this.#batteryMs, isSettled);
        return;
      }
      // The question about the battery took a moment.
      if (!this.#isPaused && mayRead()) isThrough = await read(isSettled);
    } finally {
      this.#isReading = false;
    }
    if (this.#isBehind) {
      this.#isBehind = false;
      this.wake();
    } else if (isThrough && !isSettled && !this.#isPaused) {
      this.#schedule(this.#settledMs, true);
    }
  }

  #cancelTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  dispose(): void {
    this.pause();
  }
}
