// Owns: the conversation about one repository, in memory: what was asked and what was answered. Must never hold reasoning:
// earlier answers stand in a prompt without it.
import type { HistoryTurn } from "./prompt";

export class Transcript {
  #turns: HistoryTurn[] = [];

  get turns(): readonly HistoryTurn[] {
    return this.#turns;
  }

  /** An answer that failed before its first word is no turn. */
  add(question: string, answer: string): void {
    if (answer.trim() !== "") this.#turns = [...this.#turns, { question, answer: answer.trim() }];
  }

  clear(): void {
    this.#turns = [];
  }
}
