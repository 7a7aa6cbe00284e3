// Owns: drawing one question with everything that came of it. Must stay a function of the turn it is given: drawing it step by
// step or all at once gives the same nodes.
import type { AnswerStats, Citation, RefusalCheck, TurnView } from "../../src/protocol/qa";
import { element, inlineCode, linkButton, setText, show } from "../shared/element";
import { strings } from "../shared/strings";
import { button } from "../shared/toolkit";
import { AnswerView } from "./answer";
import { ProgressView } from "./progress";
import { ReasoningView } from "./reasoning";
import type { ReasoningMemory } from "./reasoning";
import { drawRefusal } from "./refusal";

export interface TurnActions {
  readonly openCitation: (turn: number, citation: number) => void;
  readonly openRefusalPlace: (turn: number, place: number) => void;
  readonly readRefusalPlace: (turn: number, place: number) => void;
  readonly openLink: (address: string) => void;
  readonly copy: (text: string) => void;
  readonly restartEngine: () => void;
  readonly showLog: () => void;
  readonly reasoning: ReasoningMemory;
}

const shortQuestionCharacters = 400;
const shortQuestionLines = 6;

export class TurnElement {
  readonly element: HTMLElement;
  readonly #id: number;
  readonly #actions: TurnActions;
  readonly #reasoning: ReasoningView;
  readonly #progress = new ProgressView();
  readonly #answer: AnswerView;
  readonly #refusal = element("div");
  readonly #failure = element("div", { class: "failure" });
  readonly #end = element("p", { class: "end" });
  readonly #stats = element("p", { class: "stats" });
  #shown: TurnView | null = null;

  constructor(turn: TurnView, actions: TurnActions) {
    this.#id = turn.id;
    this.#actions = actions;
    this.#reasoning = new ReasoningView(actions.reasoning);
    this.#answer = new AnswerView({
      openCitation: (citation) => actions.openCitation(turn.id, citation),
      openLink: actions.openLink,
      copy: actions.copy,
    });
    this.element = element(
      "article",
      { "aria-labelledby": `question-${String(turn.id)}` },
      ...drawQuestion(turn),
      this.#reasoning.element,
      this.#answer.element,
      this.#progress.element,
      this.#refusal,
      this.#failure,
      this.#end,
      this.#stats,
    );
  }

  update(turn: TurnView, nowMs: number): void {
    const shown = this.#shown;
    if (turn === shown) return;
    this.#reasoning.update(turn, nowMs);
    this.#progress.update(turn);
    this.#answer.update(turn.answer, turn.citations);
    if (shown === null || turn.refusal !== shown.refusal) this.#drawRefusal(turn.refusal, turn);
    if (shown === null || turn.failure !== shown.failure) this.#drawFailure(turn.failure);
    const end = endText(turn);
    show(this.#end, end !== "");
    setText(this.#end, end);
    const stats = turn.phase === "done" ? statsText(turn.stats, turn.citations) : "";
    show(this.#stats, stats !== "");
    setText(this.#stats, stats);
    this.#shown = turn;
  }

  tick(nowMs: number): void {
    if (this.#shown?.phase === "reasoning") this.#reasoning.tick(this.#shown, nowMs);
  }

  #drawRefusal(refusal: RefusalCheck | null, { plan }: TurnView): void {
    show(this.#refusal, refusal !== null);
    if (refusal === null) {
      this.#refusal.replaceChildren();
      return;
    }
    this.#refusal.replaceChildren(
      drawRefusal(refusal, plan?.totalFiles ?? null, {
        openPlace: (place) => this.#actions.openRefusalPlace(this.#id, place),
        readPlace: (place) => this.#actions.readRefusalPlace(this.#id, place),
      }),
    );
  }

  #drawFailure(failure: TurnView["failure"]): void {
    show(this.#failure, failure !== null);
    if (failure === null) {
      this.#failure.replaceChildren();
      return;
    }
    const { restartEngine, showLog } = this.#actions;
    const isEngine = failure.kind.startsWith("engine-") && failure.kind !== "engine-busy";
    this.#failure.replaceChildren(
      element("p", {}, failure.message),
      element(
        "div",
        { class: "actions" },
        isEngine ? button({ kind: "secondary", onClick: restartEngine }, strings.restartEngine) : null,
        button({ kind: "secondary", onClick: showLog }, strings.showLog),
      ),
    );
  }
}

/** A long question, a selection for example, shows its first lines until the user wants all of it. */
function drawQuestion({ id, question }: TurnView): HTMLElement[] {
  const heading = element("h2", { id: `question-${String(id)}`, class: "question" }, ...inlineCode(question));
  const isLong = question.length > shortQuestionCharacters || question.split("\n").length > shortQuestionLines;
  if (!isLong) return [heading];
  heading.classList.add("clamped");
  const toggle = linkButton(strings.showAll, () => {
    const isClamped = heading.classList.toggle("clamped");
    setText(toggle, isClamped ? strings.showAll : strings.showLess);
    toggle.setAttribute("aria-expanded", String(!isClamped));
  });
  toggle.setAttribute("aria-expanded", "false");
  return [heading, toggle];
}

function endText({ doneReason }: TurnView): string {
  switch (doneReason) {
    case "stopped":
      return strings.stopped;
    case "token-limit":
      return strings.tokenLimit;
    case "context-full":
      return strings.contextFull;
    case "repetition":
      return strings.repetition;
    case "complete":
    case null:
      return "";
  }
}

export function quotesText(citations: readonly Citation[]): string {
  const count = (status: Citation["status"]): number =>
    citations.filter((citation) => citation.kind === "block" && citation.status === status).length;
  return strings.quotes(count("verified"), count("relocated"), count("earlier"), count("not-found"));
}

/** What was not measured is left out. */
function statsText(stats: AnswerStats | null, citations: readonly Citation[]): string {
  const quotes = quotesText(citations);
  const parts = quotes === "" ? [] : [strings.checkedQuotes(quotes)];
  if (stats !== null) {
    if (stats.reusedTokens > 0) parts.push(strings.reused(stats.reusedTokens, stats.promptTokens));
    if (stats.prefillTokensPerSecond !== undefined) parts.push(strings.readSpeed(stats.prefillTokensPerSecond));
    if (stats.decodeTokensPerSecond !== undefined) parts.push(strings.writeSpeed(stats.decodeTokensPerSecond));
    parts.push(strings.firstToken(stats.firstTokenMs));
  }
  return parts.join(" · ");
}
