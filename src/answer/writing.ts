// Owns: what one generation writes, as it comes: reasoning and answer told apart and counted, and when it is to be stopped.
// Must never know who generates.
import type { TokenBatch } from "../protocol/engine";
import { LoopDetector } from "./loop";
import { TraceSplitter } from "./trace";

export interface WritingSink {
  /** The new text and the tokens since the last call. */
  readonly reasoning: (text: string, tokens: number) => void;
  readonly answer: (text: string) => void;
}

export class Writing {
  reasoning = "";
  answer = "";
  tokens = 0;
  reasoningTokens = 0;
  /** By performance.now(); 0: nothing was written yet. */
  firstTokenAt = 0;
  /** Why nothing more is taken: the reasoning reached its limit, or it all goes round in a circle. */
  end: "reasoning-limit" | "repetition" | null = null;
  #reportedTokens = 0;
  readonly #loops = new LoopDetector();
  readonly #splitter: TraceSplitter;

  constructor(
    sink: WritingSink,
    private readonly reasoningLimit: number,
  ) {
    this.#splitter = new TraceSplitter({
      reasoning: (text) => {
        this.reasoning += text;
        sink.reasoning(text, this.reasoningTokens - this.#reportedTokens);
        this.#reportedTokens = this.reasoningTokens;
      },
      answer: (text) => {
        this.answer += text;
        sink.answer(text);
      },
    });
  }

  /** False: the generation is to be stopped, and what it still brings is not taken. */
  take({ ids, text }: TokenBatch): boolean {
    if (this.end !== null) return false;
    if (this.firstTokenAt === 0) this.firstTokenAt = performance.now();
    this.tokens += ids.length;
    if (!this.#splitter.isAnswer) this.reasoningTokens += ids.length;
    this.#splitter.push(text);
    if (this.#splitter.isReasoning && this.reasoningTokens >= this.reasoningLimit) this.end = "reasoning-limit";
    if (this.#loops.push(ids)) this.end = "repetition";
    return this.end === null;
  }

  /** Hands out what was held back. */
  finish(): void {
    this.#splitter.finish();
  }
}
