// Owns: the line that says what a running question is doing, with a bar while the repository is read.
import type { TurnView } from "../../src/protocol/qa";
import { element, setText, show } from "../shared/element";
import { strings } from "../shared/strings";

export class ProgressView {
  readonly element: HTMLElement;
  readonly #line = element("p");
  readonly #bar = element("progress", { "aria-label": strings.progressLabel });

  constructor() {
    this.element = element("div", { class: "progress" }, this.#line, this.#bar);
  }

  update(turn: TurnView): void {
    const text = phaseText(turn);
    show(this.element, text !== null);
    setText(this.#line, text ?? "");
    const reading = turn.phase === "reading" ? turn.reading : null;
    show(this.#bar, reading !== null);
    this.#bar.max = Math.max(1, reading?.promptTokens ?? 1);
    this.#bar.value = reading?.position ?? 0;
  }
}

/** null: nothing runs that this line should tell of; the reasoning has its own. */
export function phaseText(turn: TurnView): string | null {
  switch (turn.phase) {
    case "waiting":
      return strings.waiting;
    case "scanning":
      return strings.scanning(turn.scannedFiles);
    case "loading":
      return strings.loading;
    case "planning":
      return strings.planning;
    case "reading": {
      const { reading, shards } = turn;
      if (reading === null) return strings.readingStart;
      const { position, promptTokens, tokensPerSecond, secondsLeft } = reading;
      return strings.reading(position, promptTokens, tokensPerSecond, secondsLeft, shards);
    }
    case "answering":
      return turn.shards === null ? strings.answering : strings.askingParts(turn.shards);
    case "checking":
      return strings.checking;
    case "reasoning":
    case "done":
    case "failed":
      return null;
  }
}
