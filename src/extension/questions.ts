// Owns: the way of every question into the conversation, wherever it comes from, and what is said when it cannot be asked now.
import { l10n, window } from "vscode";
import { RingsideFailure } from "../protocol/errors";
import type { Effort, TurnView } from "../protocol/qa";
import type { Conversation } from "./conversation";
import type { QaPanel } from "./qaPanel";
import { wordError } from "./words";

export class Questions {
  readonly #conversation: Conversation;
  #panel: QaPanel | null = null;

  constructor(conversation: Conversation) {
    this.#conversation = conversation;
  }

  /** The panel is made later: it needs the questions itself. */
  attach(panel: QaPanel): void {
    this.#panel = panel;
  }

  /** Ends with the answer; undefined: it was not asked, and the user has been told why. */
  async ask(
    text: string,
    effort: Effort = "high",
    pinned: readonly string[] = [],
    exhaustive = false,
  ): Promise<TurnView | undefined> {
    try {
      const answered = this.#conversation.ask(text, effort, pinned, exhaustive);
      answered.catch(() => undefined); // Awaited below; a failure meanwhile must not count as unhandled.
      await this.#panel?.show();
      return await answered;
    } catch (cause) {
      if (!(cause instanceof RingsideFailure)) throw cause;
      if (cause.error.kind === "engine-busy") void this.#offerStop(wordError(cause.error));
      return undefined;
    }
  }

  async #offerStop(message: string): Promise<void> {
    const stop = l10n.t("Stop");
    if ((await window.showInformationMessage(message, stop)) === stop) this.#conversation.stop();
  }
}
