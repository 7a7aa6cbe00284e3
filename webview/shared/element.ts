// Owns: making elements from data. Must never take markup: every string becomes a text node or an attribute's value.

export type Child = Node | string | null;
type Attributes = Readonly<Record<string, string>>;

const forbiddenAttribute = /^(?:on|style$|src)/i;

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes?: Attributes,
  ...children: readonly Child[]
): HTMLElementTagNameMap[K];
export function element(tag: string, attributes?: Attributes, ...children: readonly Child[]): HTMLElement;
export function element(tag: string, attributes: Attributes = {}, ...children: readonly Child[]): HTMLElement {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    // The content security policy would refuse these; failing here shows where.
    if (forbiddenAttribute.test(name)) throw new Error(`element: attribute ${name} is not allowed`);
    node.setAttribute(name, value);
  }
  append(node, children);
  return node;
}

export function append(parent: Node, children: readonly Child[]): void {
  for (const child of children) {
    if (child !== null) parent.appendChild(typeof child === "string" ? document.createTextNode(child) : child);
  }
}

/** A button that looks like a link: what it does is decided by the extension, so it has no address. */
export function linkButton(text: string, onClick: () => void, className = "link"): HTMLButtonElement {
  const node = element("button", { type: "button", class: className }, ...inlineCode(text));
  node.addEventListener("click", onClick);
  return node;
}

/** Plain text in which names in backticks are set as code, as in questions. */
export function inlineCode(text: string): Child[] {
  return text.split(/`([^`\n]+)`/).map((part, index) => (index % 2 === 1 ? element("code", {}, part) : part));
}

export function show(node: HTMLElement, isShown: boolean): void {
  node.hidden = !isShown;
}

/** Writes only what differs, so that selections and screen readers are left alone. */
export function setText(node: HTMLElement, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

const icons = {
  ask: "M8 2.5 13 7.6l-.9.9L8.6 5v8.5H7.4V5L3.9 8.5 3 7.6z",
  stop: "M4 4h8v8H4z",
  copy: "M5 2h8v9h-2v3H3V5h2zm1.2 1.2V5H11v4.8h.8V3.2zM4.2 6.2v6.6h5.6V6.2z",
  done: "m13.4 4.3-7 7.6-3.800-3.700.9-.9 2.900 2.800 6.100-6.700z",
  down: "M8 13.5 3 8.4l.9-.9L7.400 11V2.500h1.200V11l3.500-3.500.9.9z",
} as const;

export function icon(name: keyof typeof icons): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", icons[name]);
  svg.appendChild(path);
  return svg;
}
