// Owns: the block that shows the model's reasoning: streaming, collapsible, with its time and tokens. The text is shown as it
// is, never as Markdown.
import type { TurnView } from "../../src/protocol/qa";
import { element, setText, show } from "../shared/element";
import { strings } from "../shared/strings";

export interface ReasoningMemory {
  /** Whether finished reasoning stands open; null: the user never said. */
  readonly isOpen: () => boolean | null;
  readonly setOpen: (isOpen: boolean) => void;
}

export class ReasoningView {
  readonly element: HTMLDetailsElement;
  readonly #summary = element("summary");
  readonly #body = element("div", { class: "trace", tabindex: "0" });
  readonly #text = document.createTextNode("");
  readonly #memory: ReasoningMemory;
  #wasRunning: boolean | null = null;

  constructor(memory: ReasoningMemory) {
    this.#memory = memory;
    this.#body.appendChild(this.#text);
    this.element = element("details", { class: "reasoning" }, this.#summary, this.#body);
    // Only the user clicks; what update() opens and closes is not remembered.
    this.#summary.addEventListener("click", () => memory.setOpen(!this.element.open));
  }

  update(turn: TurnView, nowMs: number): void {
    const isRunning = turn.phase === "reasoning";
    show(this.element, turn.reasoning !== "" || isRunning);
    if (isRunning !== this.#wasRunning) {
      this.element.open = isRunning || this.#memory.isOpen() === true;
      this.#wasRunning = isRunning;
      this.element.classList.toggle("running", isRunning);
    }
    const isAtEnd = this.#body.scrollHeight - this.#body.scrollTop - this.#body.clientHeight < 24;
    if (turn.reasoning.startsWith(this.#text.data)) this.#text.appendData(turn.reasoning.slice(this.#text.length));
    else this.#text.data = turn.reasoning;
    if (isRunning && isAtEnd) this.#body.scrollTop = this.#body.scrollHeight;
    this.tick(turn, nowMs);
  }

  /** The running timer. */
  tick(turn: TurnView, nowMs: number): void {
    const isRunning = turn.phase === "reasoning";
    const runningMs = Math.max(turn.reasoningMs, nowMs - (turn.reasoningStartedAtMs ?? nowMs));
    setText(
      this.#summary,
      isRunning
        ? strings.reasoningRunning(runningMs, turn.reasoningTokens)
        : strings.reasoningEnded(turn.reasoningMs, turn.reasoningTokens),
    );
  }
}
