// Owns: the pace at which events go to the page: at most one batch in 30 ms, with the text of one batch joined and only the
// newest of what replaces itself. Must never change what the page has drawn after the batch, nor the order of what it keeps.
import type { AskEvent, ToQaPage } from "../protocol/qa";

export const batchMs = 30;

type EventMessage = Extract<ToQaPage, { type: "event" }>;

export class EventQueue {
  readonly #send: (message: EventMessage) => void;
  #waiting: EventMessage[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(send: (message: EventMessage) => void) {
    this.#send = send;
  }

  push(message: EventMessage): void {
    const last = this.#waiting[this.#waiting.length - 1];
    const joined = last?.turn === message.turn ? join(last.event, message.event) : null;
    if (joined !== null) this.#waiting[this.#waiting.length - 1] = { ...message, event: joined };
    else this.#waiting.push(message);
    this.#timer ??= setTimeout(() => this.flush(), batchMs);
  }

  flush(): void {
    const messages = this.#waiting;
    this.clear();
    for (const message of messages) this.#send(message);
  }

  /** Drops what waits: the page is about to get everything. */
  clear(): void {
    this.#waiting = [];
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

/** One event that does what the two do; null: there is none. */
function join(first: AskEvent, second: AskEvent): AskEvent | null {
  if (first.type === "answer" && second.type === "answer") return { type: "answer", text: first.text + second.text };
  if (first.type === "reasoning" && second.type === "reasoning") {
    return { type: "reasoning", text: first.text + second.text, tokens: first.tokens + second.tokens };
  }
  if (first.type === second.type && (second.type === "reading" || second.type === "scan")) return second;
  return null;
}
