// Owns: the question box and its buttons. Keeps what the user wrote until it was really asked.
import { questionLimitCharacters } from "../../src/protocol/qa";
import { element, icon, setText, show } from "../shared/element";
import { strings } from "../shared/strings";
import { button, TextBox } from "../shared/toolkit";

export interface ComposerActions {
  /** `exhaustive`: of every file. */
  readonly ask: (text: string, exhaustive: boolean) => void;
  readonly stop: () => void;
  readonly draft: (text: string) => void;
}

const mostRows = 10;

export class Composer {
  readonly element: HTMLElement;
  readonly #actions: ComposerActions;
  readonly #box: TextBox;
  readonly #everyFile = element("input", { type: "checkbox" });
  readonly #hint = element("p", { class: "hint", role: "status" });
  readonly #ask: HTMLElement;
  readonly #stop: HTMLElement;
  #isRunning = false;

  constructor(actions: ComposerActions, draft: string) {
    this.#actions = actions;
    this.#box = new TextBox({
      label: strings.questionLabel,
      mostRows,
      onInput: () => {
        this.#say("");
        actions.draft(this.#box.value);
      },
    });
    this.#box.value = draft;
    this.#box.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.#ask = button({ kind: "primary", label: strings.ask, onClick: () => this.#submit() }, icon("ask"));
    this.#ask.classList.add("ask");
    this.#stop = button({ kind: "secondary", label: strings.stop, onClick: actions.stop }, icon("stop"), strings.stop);
    this.#stop.classList.add("stop");
    this.element = element(
      "div",
      { class: "composer" },
      element("div", { class: "row" }, this.#box.element, this.#ask, this.#stop),
      element("div", { class: "below" }, this.#hint, this.#drawChoice()),
    );
    this.#say("");
  }

  update(options: { isRunning: boolean; isEnabled: boolean; hasTurns: boolean }): void {
    if (this.#isRunning && !options.isRunning) this.#say("");
    this.#isRunning = options.isRunning;
    this.#box.disabled = !options.isEnabled;
    this.#everyFile.disabled = !options.isEnabled;
    this.#box.placeholder = options.hasTurns ? strings.questionPlaceholderNext : strings.questionPlaceholder;
    show(this.#ask, !options.isRunning);
    show(this.#stop, options.isRunning);
    this.#ask.toggleAttribute("disabled", !options.isEnabled);
  }

  /** null: leave what stands there. */
  focus(text: string | null, exhaustive = false): void {
    if (exhaustive) this.#everyFile.checked = true;
    if (text !== null) {
      this.#box.value = text;
      this.#actions.draft(text);
    }
    this.#box.focus();
  }

  #drawChoice(): HTMLElement {
    const label = element("label", { class: "every-file" }, this.#everyFile, strings.everyFile);
    label.title = strings.everyFileHint;
    return label;
  }

  #onKey(event: KeyboardEvent): void {
    // While an input method composes a character, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit(): void {
    const text = this.#box.value;
    if (this.#isRunning) {
      this.#say(strings.oneAtATime);
      return;
    }
    if (text.trim() === "") {
      this.#say(strings.questionEmpty);
      return;
    }
    if (text.length > questionLimitCharacters) {
      this.#say(strings.questionTooLong(text.length, questionLimitCharacters));
      return;
    }
    this.#box.value = "";
    this.#actions.draft("");
    this.#actions.ask(text, this.#everyFile.checked);
    // Reading everything takes its time: it is wanted for one question, not from now on.
    this.#everyFile.checked = false;
  }

  #say(hint: string): void {
    setText(this.#hint, hint === "" ? strings.keys : hint);
    this.#hint.classList.toggle("warning", hint !== "");
  }
}
