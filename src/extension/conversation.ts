// Owns: the questions of this window, what came of each, and that only one runs at a time. The panel only shows it. Knows nothing
// of VS Code, so that its promises can be tested without one.
import type { HistoryTurn } from "../answer/prompt";
import { failure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import { questionLimitCharacters } from "../protocol/qa";
import type { AskEvent, Effort, TurnView } from "../protocol/qa";
import { applyEvent, newTurn } from "../protocol/turn";

export interface Question {
  readonly text: string;
  readonly effort: Effort;
  /** Files that must be read for it. */
  readonly pinned: readonly string[];
  /** Put to every file, part by part. */
  readonly exhaustive: boolean;
  readonly history: readonly HistoryTurn[];
}

/** Asks for real. Never rejects; the last event is "done" or "failed". */
export type Asker = (question: Question, sink: (event: AskEvent) => void, signal: AbortSignal) => Promise<unknown>;

export interface ConversationListener {
  /** Turns came or went: draw everything again. */
  readonly onTurns: () => void;
  readonly onEvent: (turn: number, event: AskEvent, failureMessage: string | undefined) => void;
}

interface Running {
  readonly id: number;
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

export class Conversation {
  readonly #ask: Asker;
  readonly #word: (error: RingsideError) => string;
  readonly #listeners = new Set<ConversationListener>();
  #turns: readonly TurnView[] = [];
  #running: Running | null = null;
  #lastId = 0;

  constructor(ask: Asker, word: (error: RingsideError) => string) {
    this.#ask = ask;
    this.#word = word;
  }

  get turns(): readonly TurnView[] {
    return this.#turns;
  }

  /** The question that runs, or null. */
  get activeTurn(): number | null {
    const id = this.#running?.id;
    const turn = id === undefined ? undefined : this.turn(id);
    return turn === undefined || hasEnded(turn) ? null : turn.id;
  }

  turn(id: number): TurnView | undefined {
    return this.#turns.find((turn) => turn.id === id);
  }

  listen(listener: ConversationListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends with the question. Rejects with "engine-busy" while another one runs. */
  async ask(text: string, effort: Effort, pinned: readonly string[] = [], exhaustive = false): Promise<TurnView> {
    if (this.activeTurn !== null) throw failure("engine-busy");
    const id = ++this.#lastId;
    const history = this.#history();
    const before = this.#running?.ended;
    const abort = new AbortController();
    const run = async (): Promise<void> => {
      // A stopped question may still be on its way out of the engine.
      await before;
      await this.#ask({ text, effort, pinned, exhaustive, history }, (event) => this.#apply(id, event), abort.signal);
    };
    // One that is longer is refused; the page need not hold all of it to say so.
    this.#turns = [...this.#turns, newTurn(id, text.slice(0, questionLimitCharacters), Date.now())];
    // An asker that breaks its promise must not keep all later questions waiting.
    const ended = run().catch((cause: unknown) => {
      this.#apply(id, { type: "failed", error: failure("internal", "question", "", String(cause)).error });
    });
    this.#running = { id, abort, ended };
    for (const { onTurns } of this.#listeners) onTurns();
    await ended;
    this.#forget(id);
    const turn = this.turn(id);
    if (turn === undefined) throw failure("cancelled");
    return turn;
  }

  /** The engine confirms with the question's last event. */
  stop(): void {
    this.#running?.abort.abort();
  }

  /** Ends the running question with a failure, at once. */
  fail(error: RingsideError): void {
    const id = this.activeTurn;
    if (id !== null) this.#apply(id, { type: "failed", error });
    this.stop();
  }

  clear(): void {
    this.stop();
    this.#turns = [];
    for (const { onTurns } of this.#listeners) onTurns();
  }

  #forget(id: number): void {
    if (this.#running?.id === id) this.#running = null;
  }

  #apply(id: number, event: AskEvent): void {
    const turn = this.turn(id);
    if (turn === undefined || hasEnded(turn)) return;
    const message = event.type === "failed" ? this.#word(event.error) : undefined;
    const changed = applyEvent(turn, event, Date.now(), message);
    this.#turns = this.#turns.map((other) => (other.id === id ? changed : other));
    for (const { onEvent } of this.#listeners) onEvent(id, event, message);
  }

  #history(): HistoryTurn[] {
    return this.#turns.flatMap(({ question, answer, phase }) =>
      phase === "done" && answer.trim() !== "" ? [{ question, answer: answer.trim() }] : [],
    );
  }
}

function hasEnded({ phase }: TurnView): boolean {
  return phase === "done" || phase === "failed";
}
