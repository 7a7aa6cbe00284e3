// Owns: the sessions whose answers are generated together: how many of them there is room for, and their end.
// Must never hold more than its share of the memory: one that does not fit is refused before anything is read.
import type { ModelInfo } from "../protocol/engine";
import { failure } from "../protocol/errors";
import type { NativeModel } from "./addonTypes";
import { HeldSession } from "./heldSession";

export class BatchSessions {
  readonly #model: NativeModel;
  readonly #sizes: Pick<ModelInfo, "stateBytes" | "kvBytesPerToken">;
  readonly #limitBytes: number;
  readonly #open = new Map<number, { readonly session: HeldSession; readonly bytes: number }>();

  constructor(model: NativeModel, sizes: Pick<ModelInfo, "stateBytes" | "kvBytesPerToken">, limitBytes: number) {
    this.#model = model;
    this.#sizes = sizes;
    this.#limitBytes = limitBytes;
  }

  /** For a prompt of so many tokens. The first one is never refused for its size: it is no larger than that of the conversation. */
  open(number: number, tokens: number): HeldSession {
    const known = this.#open.get(number);
    const others = [...this.#open].reduce((total, [other, { bytes }]) => (other === number ? total : total + bytes), 0);
    const bytes = this.#sizes.stateBytes + tokens * this.#sizes.kvBytesPerToken;
    if (others > 0 && others + bytes > this.#limitBytes) {
      throw failure("out-of-memory", "sessions", String(others + bytes), String(this.#limitBytes));
    }
    const session = known?.session ?? HeldSession.open(this.#model);
    this.#open.set(number, { session, bytes });
    return session;
  }

  /** One that was opened and has read its prompt, or nothing yet. */
  get(number: number): HeldSession {
    const known = this.#open.get(number);
    if (known === undefined)
      throw failure("state-invalid", `session ${String(number)}`, "a prompt that was read", "none");
    return known.session;
  }

  close(): void {
    for (const { session } of this.#open.values()) session.close();
    this.#open.clear();
  }
}
