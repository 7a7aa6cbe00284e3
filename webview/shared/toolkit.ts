// Owns: the one import of the component toolkit, whose upstream is archived: to replace it, give these functions other elements.
// Must never be passed by: no other file of the pages names a toolkit element.
import { provideVSCodeDesignSystem, vsCodeButton, vsCodeTextArea } from "@vscode/webview-ui-toolkit";
import { element } from "./element";
import type { Child } from "./element";

/** Must run before the first of the functions below. */
export function registerToolkit(): void {
  provideVSCodeDesignSystem().register(vsCodeButton(), vsCodeTextArea());
}

export interface ButtonOptions {
  readonly kind: "primary" | "secondary" | "icon";
  /** Needed where the content is only an icon. */
  readonly label?: string;
  readonly onClick: () => void;
}

export function button(options: ButtonOptions, ...content: readonly Child[]): HTMLElement {
  const node = element("vscode-button", { appearance: options.kind }, ...content);
  if (options.label !== undefined) {
    node.setAttribute("aria-label", options.label);
    node.title = options.label;
  }
  node.addEventListener("click", options.onClick);
  return node;
}

/** A multi-line text box that grows with its text up to `mostRows`. */
export class TextBox {
  readonly element: HTMLElement & { value: string; placeholder: string };
  readonly #mostRows: number;

  constructor(options: { label: string; mostRows: number; onInput: () => void }) {
    this.#mostRows = options.mostRows;
    this.element = element("vscode-text-area", { "aria-label": options.label, rows: "2" }) as typeof this.element;
    this.element.addEventListener("input", () => {
      this.#grow();
      options.onInput();
    });
  }

  get value(): string {
    return this.element.value;
  }

  set value(text: string) {
    this.element.value = text;
    this.#grow();
  }

  set placeholder(text: string) {
    this.element.placeholder = text;
  }

  set disabled(disabled: boolean) {
    this.element.toggleAttribute("disabled", disabled);
  }

  focus(): void {
    this.element.focus();
  }

  #grow(): void {
    const rows = this.element.value.split("\n", this.#mostRows).length;
    this.element.setAttribute("rows", String(Math.min(this.#mostRows, Math.max(2, rows))));
  }
}
