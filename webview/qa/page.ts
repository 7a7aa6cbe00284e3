// Owns: the Q&A page as a whole: which parts stand where, and drawing them from the panel's state at a pace that leaves the
// browser most of its time. Must never hold anything that the next "state" message could not bring back.
import type { FromQaPage, PanelState, TurnView } from "../../src/protocol/qa";
import { append, element, icon, linkButton, setText, show } from "../shared/element";
import type { Host } from "../shared/host";
import { strings } from "../shared/strings";
import { button } from "../shared/toolkit";
import { Composer } from "./composer";
import { phaseText } from "./progress";
import { EndFollower } from "./scroll";
import { quotesText, TurnElement } from "./turn";
import type { TurnActions } from "./turn";
import { drawWelcome } from "./welcome";

const timerMs = 200;
/** A drawing may take one part in this many of the time, however long the answer grows. */
const drawShare = 4;

export class QaPage {
  readonly #host: Host;
  readonly #conversation = element("div", { class: "conversation", role: "region", tabindex: "0" });
  readonly #turns = element("div", { class: "turns" });
  readonly #welcome = element("div");
  readonly #coverage = element("span", { class: "coverage-text" });
  readonly #stopReading: HTMLElement;
  readonly #fit = element("div", { class: "notice fit" });
  readonly #notice = element("div", { class: "notice", role: "status" });
  readonly #announcer = element("div", { class: "unseen", role: "status" });
  readonly #toEnd: HTMLElement;
  readonly #composer: Composer;
  readonly #follower: EndFollower;
  readonly #drawn = new Map<number, TurnElement>();
  #state: PanelState;
  #shown: PanelState | null = null;
  #announced = "";
  #isScheduled = false;
  #nextDrawMs = 0;

  constructor(main: HTMLElement, host: Host, state: PanelState) {
    this.#host = host;
    this.#state = state;
    this.#conversation.setAttribute("aria-label", strings.conversation);
    append(this.#conversation, [this.#welcome, this.#turns]);
    this.#toEnd = button(
      { kind: "secondary", label: strings.toEnd, onClick: () => this.#follower.toEnd() },
      icon("down"),
    );
    this.#toEnd.classList.add("to-end");
    show(this.#toEnd, false);
    this.#follower = new EndFollower(this.#conversation, this.#turns, (isFollowing) => show(this.#toEnd, !isFollowing));
    this.#stopReading = linkButton(strings.stopReading, () => this.#post({ type: "stop" }));
    this.#composer = new Composer(
      {
        ask: (text, exhaustive) => this.#ask(text, exhaustive),
        stop: () => this.#post({ type: "stop" }),
        draft: (draft) => host.remember({ draft }),
      },
      host.memory.draft,
    );
    append(main, [this.#conversation, this.#drawFooter(), this.#announcer]);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) this.#composer.focus(null);
    });
    setInterval(() => {
      for (const turn of this.#drawn.values()) turn.tick(Date.now());
    }, timerMs);
  }

  get state(): PanelState {
    return this.#state;
  }

  update(state: PanelState): void {
    this.#state = state;
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const waitMs = this.#nextDrawMs - performance.now();
    const draw = (): void => {
      requestAnimationFrame(() => this.#draw());
    };
    if (waitMs <= 0) draw();
    else setTimeout(draw, waitMs);
  }

  focusQuestion(text: string | undefined, exhaustive = false): void {
    this.#composer.focus(text ?? null, exhaustive);
  }

  #post(message: FromQaPage): void {
    this.#host.post(message);
  }

  #ask(text: string, exhaustive = false): void {
    this.#follower.toEnd();
    this.#post({ type: "ask", text, effort: "high", exhaustive });
  }

  #drawFooter(): HTMLElement {
    const coverage = element(
      "p",
      { class: "coverage" },
      this.#coverage,
      element(
        "span",
        { class: "coverage-links" },
        linkButton(strings.chooseFolders, () => this.#post({ type: "chooseFolders" })),
        linkButton(strings.showFiles, () => this.#post({ type: "showFiles" })),
        this.#stopReading,
      ),
    );
    return element("footer", {}, this.#toEnd, this.#notice, this.#fit, coverage, this.#composer.element);
  }

  #draw(): void {
    const startMs = performance.now();
    this.#isScheduled = false;
    const { turns, activeTurn, workspace, coverage, suggestions } = this.#state;
    const shown = this.#shown;
    const welcomeChanged =
      shown === null ||
      (shown.turns.length === 0) !== (turns.length === 0) ||
      shown.workspace !== workspace ||
      shown.suggestions !== suggestions;
    if (welcomeChanged) this.#drawWelcome();
    if (shown?.engine.deviceLoss?.onProcessor !== this.#state.engine.deviceLoss?.onProcessor) this.#drawNotice();
    this.#drawTurns();
    this.#drawCoverage();
    if (shown?.coverage !== coverage) this.#drawFit();
    this.#composer.update({
      isRunning: activeTurn !== null,
      isEnabled: workspace !== "none",
      hasTurns: turns.length > 0,
    });
    this.#announce(turns[turns.length - 1]);
    this.#shown = this.#state;
    this.#follower.settle();
    const endMs = performance.now();
    this.#nextDrawMs = endMs + (endMs - startMs) * (drawShare - 1);
  }

  #drawWelcome(): void {
    const isShown = this.#state.turns.length === 0 || this.#state.workspace === "none";
    show(this.#welcome, isShown);
    const welcome = drawWelcome(this.#state, {
      openFolder: () => this.#post({ type: "openFolder" }),
      manageTrust: () => this.#post({ type: "manageTrust" }),
      ask: (text) => this.#ask(text),
    });
    this.#welcome.replaceChildren(...(isShown ? [welcome] : []));
  }

  /** What the user has to know of the engine while nothing has failed. */
  #drawNotice(): void {
    const isShown = this.#state.engine.deviceLoss?.onProcessor === true;
    show(this.#notice, isShown);
    const restart = (): void => this.#post({ type: "restartEngine" });
    this.#notice.replaceChildren(
      ...(isShown ? [element("span", {}, strings.onProcessor), linkButton(strings.restartEngine, restart)] : []),
    );
  }

  #drawCoverage(): void {
    const { coverage, changedFiles, readAhead, scope } = this.#state;
    show(this.#stopReading, readAhead !== null);
    if (readAhead !== null) {
      setText(this.#coverage, strings.readingAhead(readAhead));
      return;
    }
    const folders = scope.length === 0 ? "" : ` ${strings.scope(scope)}`;
    const read = coverage === null ? strings.nothingRead : strings.coverage(coverage) + folders;
    setText(this.#coverage, changedFiles === 0 ? read : `${read} · ${strings.changedFiles(changedFiles)}`);
  }

  /** Past the window, never in silence: what that costs, and what can be done about it beside choosing folders. */
  #drawFit(): void {
    const { coverage } = this.#state;
    const isPast = coverage !== null && coverage.outlinedFiles + coverage.leftOutFiles > 0;
    show(this.#fit, isPast);
    this.#fit.replaceChildren();
    if (!isPast) return;
    const link = (text: string, type: "showContext" | "outlineFolders"): HTMLElement =>
      linkButton(text, () => this.#post({ type }));
    append(this.#fit, [
      element("span", {}, strings.windowFit(coverage)),
      link(strings.showContext, "showContext"),
      link(strings.outlineFolders, "outlineFolders"),
    ]);
  }

  #drawTurns(): void {
    const nowMs = Date.now();
    const ids = new Set(this.#state.turns.map(({ id }) => id));
    for (const [id, turn] of this.#drawn) {
      if (ids.has(id)) continue;
      turn.element.remove();
      this.#drawn.delete(id);
    }
    for (const turn of this.#state.turns) {
      let drawn = this.#drawn.get(turn.id);
      if (drawn === undefined) {
        drawn = new TurnElement(turn, this.#turnActions());
        this.#drawn.set(turn.id, drawn);
        this.#turns.appendChild(drawn.element);
      }
      drawn.update(turn, nowMs);
    }
  }

  #turnActions(): TurnActions {
    return {
      openCitation: (turn, citation) => this.#post({ type: "openCitation", turn, citation }),
      openRefusalPlace: (turn, place) => this.#post({ type: "openRefusalPlace", turn, place }),
      readRefusalPlace: (turn, place) => {
        this.#follower.toEnd();
        this.#post({ type: "readRefusalPlace", turn, place });
      },
      openLink: (href) => this.#post({ type: "openLink", href }),
      copy: (text) => this.#post({ type: "copy", text }),
      restartEngine: () => this.#post({ type: "restartEngine" }),
      showLog: () => this.#post({ type: "openLog" }),
      reasoning: {
        isOpen: () => this.#host.memory.reasoningOpen,
        setOpen: (reasoningOpen) => this.#host.remember({ reasoningOpen }),
      },
    };
  }

  /** A screen reader hears each phase once and the end; never each token or percent. */
  #announce(turn: TurnView | undefined): void {
    const text = turn === undefined ? "" : announcement(turn);
    if (text === this.#announced) return;
    this.#announced = text;
    setText(this.#announcer, text);
  }
}

function announcement(turn: TurnView): string {
  if (turn.phase === "failed") return turn.failure?.message ?? "";
  if (turn.phase === "done") {
    return turn.doneReason === "stopped" ? strings.stopped : strings.answerComplete(quotesText(turn.citations));
  }
  if (turn.phase === "reading") return strings.readingStart;
  if (turn.phase === "scanning") return strings.scanning(0);
  return phaseText(turn) ?? strings.reasoningNow;
}
