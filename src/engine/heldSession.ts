// Owns: one native session with what it holds, as far as is known.
// Must never claim tokens that the session may not hold: what is not known is read again.
import type { NativeModel, NativeResult, NativeSession, NativeSnapshot } from "./addonTypes";
import { unwrap } from "./promptTokens";
import { boundaryAt } from "./snapshotKeys";

export class HeldSession {
  readonly native: NativeSession;
  #held = new Int32Array(0);

  private constructor(native: NativeSession) {
    this.native = native;
  }

  static open(model: NativeModel): HeldSession {
    return new HeldSession(unwrap(model.openSession()));
  }

  /** How many of these tokens it has read itself: it can go back to the start of its open chunk and no further. */
  common(tokens: Int32Array): number {
    if (this.native.position() !== this.#held.length) return 0;
    const differs = this.#held.findIndex((token, index) => token !== tokens[index]);
    const common = differs < 0 ? this.#held.length : differs;
    return common >= boundaryAt(this.#held.length) ? common : 0;
  }

  /** As NativeSession.sync. */
  async sync(
    tokens: Int32Array,
    snapshots: readonly NativeSnapshot[],
    advanced: (position: number) => void,
  ): Promise<NativeResult<{ readonly reused: number }>> {
    const result = await this.native.sync(tokens, snapshots, advanced);
    this.#held = tokens.slice(0, this.native.position());
    return result;
  }

  /** What it generated, it holds as well. */
  remember(generated: readonly number[]): void {
    const held = new Int32Array(this.#held.length + generated.length);
    held.set(this.#held);
    held.set(generated, this.#held.length);
    this.#held = held.subarray(0, this.native.position());
  }

  close(): void {
    this.native.close();
  }
}
