// Owns: the page's end of the wall to the extension: typed messages out, parsed messages in, and the page's own small memory.
// Must never believe a message that the protocol's parser refused.
import type { FromQaPage, ToQaPage } from "../../src/protocol/qa";
import { parseToQaPage } from "../../src/protocol/validateQa";

interface VsCodeApi {
  postMessage(message: unknown): void;
  getState(): unknown;
  setState(state: unknown): void;
}
declare function acquireVsCodeApi(): VsCodeApi;

/** What only this page knows and keeps while it is hidden. */
export interface PageMemory {
  readonly draft: string;
  /** Whether finished reasoning stands open; null: the user never said. */
  readonly reasoningOpen: boolean | null;
}

export class Host {
  readonly #api = acquireVsCodeApi();
  #memory = readMemory(this.#api.getState());

  get memory(): PageMemory {
    return this.#memory;
  }

  remember(change: Partial<PageMemory>): void {
    this.#memory = { ...this.#memory, ...change };
    this.#api.setState(this.#memory);
  }

  post(message: FromQaPage): void {
    this.#api.postMessage(message);
  }

  listen(onMessage: (message: ToQaPage) => void): void {
    window.addEventListener("message", (event: MessageEvent<unknown>) => {
      const message = parseToQaPage(event.data);
      if (message !== null) onMessage(message);
    });
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
      this.post({ type: "violation", directive: effectiveDirective, blocked: blockedURI.slice(0, 2_000) });
    });
  }
}

function readMemory(state: unknown): PageMemory {
  const { draft, reasoningOpen } = (typeof state === "object" && state !== null ? state : {}) as Record<
    string,
    unknown
  >;
  return {
    draft: typeof draft === "string" ? draft : "",
    reasoningOpen: typeof reasoningOpen === "boolean" ? reasoningOpen : null,
  };
}
