// Owns: the split of generated text into reasoning and answer while it streams, wherever the text is cut.
// Must never lose or reorder a visible character of either, or hold back more than a tag's length and line ends.

const openTag = "<think>";
const closeTag = "</think>";

export interface TraceSink {
  readonly reasoning: (text: string) => void;
  readonly answer: (text: string) => void;
}

/** "start": nothing but blank space was seen, so a tag may still come first. */
type Mode = "start" | "reasoning" | "answer";

/** An unfinished closing tag at the end. */
const partOfCloseTag = String.raw`<(?:\/(?:t(?:h(?:i(?:n(?:k)?)?)?)?)?)?`;
const endOfReasoning = new RegExp(`\\n*(?:${partOfCloseTag})?$`);
const endOfAnswer = /\n*$/;
const endOfAnswerWithStray = new RegExp(`\\n+${partOfCloseTag}$|\\n*$`);

/**
 * Feed it every piece, then call finish(). Line ends around the tags belong to the format and are dropped. After the reasoning has
 * ended all text is the answer, tags in it included: an answer may well quote code that holds them. Only where there was no
 * reasoning is a closing tag at the start of a line left out: the model thought although it was told not to.
 */
export class TraceSplitter {
  #mode: Mode;
  /** Text that may belong to a tag, or line ends that may be the last ones. */
  #held = "";
  #started = false;
  #hasReasoned: boolean;
  /** Stands between what came before a stray tag and what comes after it. */
  #separator = "";

  /** `opened`: the prompt ended with the opening tag, so the text begins inside the reasoning. */
  constructor(
    private readonly sink: TraceSink,
    opened = false,
  ) {
    this.#mode = opened ? "reasoning" : "start";
    this.#hasReasoned = opened;
  }

  get isReasoning(): boolean {
    return this.#mode === "reasoning";
  }

  get isAnswer(): boolean {
    return this.#mode === "answer";
  }

  push(text: string): void {
    this.#held += text;
    if (this.#mode === "start") this.#start();
    if (this.#mode === "reasoning") this.#reason();
    if (this.#mode === "answer") this.#answer();
  }

  /** Hands out what was held back, but for the last line ends. */
  finish(): void {
    const rest = this.#held.replace(/\n+$/, "");
    this.#held = "";
    if (this.#mode === "reasoning") this.#emit("reasoning", rest);
    else this.#emit("answer", rest);
  }

  #start(): void {
    const visible = this.#held.trimStart();
    if (visible.startsWith(openTag)) {
      this.#hasReasoned = true;
      this.#enter("reasoning", visible.slice(openTag.length));
    } else if (visible.startsWith(closeTag)) this.#enter("answer", visible.slice(closeTag.length));
    else if (!openTag.startsWith(visible) && !closeTag.startsWith(visible)) this.#enter("answer", this.#held);
  }

  #reason(): void {
    const end = this.#held.indexOf(closeTag);
    if (end >= 0) {
      this.#emit("reasoning", this.#held.slice(0, end).replace(/\n+$/, ""));
      this.#enter("answer", this.#held.slice(end + closeTag.length));
    } else {
      this.#release("reasoning", endOfReasoning);
    }
  }

  #answer(): void {
    const stray = this.#hasReasoned ? -1 : this.#held.indexOf(`\n${closeTag}`);
    if (stray >= 0) {
      this.#hasReasoned = true;
      this.#emit("answer", this.#held.slice(0, stray).replace(/\n+$/, ""));
      this.#separator = "\n\n";
      this.#enter("answer", this.#held.slice(stray + 1 + closeTag.length));
    }
    this.#release("answer", this.#hasReasoned ? endOfAnswer : endOfAnswerWithStray);
  }

  #enter(mode: Mode, rest: string): void {
    this.#mode = mode;
    this.#held = rest;
    this.#started = false;
  }

  /** Emits all but the end that matches `keep`. */
  #release(to: "reasoning" | "answer", keep: RegExp): void {
    const kept = keep.exec(this.#held)?.[0] ?? "";
    this.#emit(to, this.#held.slice(0, this.#held.length - kept.length));
    this.#held = kept;
  }

  #emit(to: "reasoning" | "answer", text: string): void {
    const visible = this.#started ? text : text.replace(/^\n+/, "");
    if (visible === "") return;
    this.#started = true;
    this.sink[to](this.#separator + visible);
    this.#separator = "";
  }
}
