// Owns: how one block of an answer's Markdown becomes nodes of the page. The text is the model's: untrusted.
// Must never let a string become markup but through the parser and the allow-list below.
import DOMPurify from "dompurify";
import type { RendererRule } from "markdown-it";
import { element, linkButton } from "./element";
import { createParser, lineStarts } from "./markdownBlocks";
import { strings } from "./strings";

export interface Fence {
  /** Where the block with its fences stands, from the beginning of the rendered text. */
  readonly start: number;
  readonly end: number;
  readonly language: string;
  readonly code: string;
}

const parser = createParser();
export { parser as markdownParser };

const allowed = {
  ALLOWED_TAGS: ["p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"].concat([
    "h3",
    "h4",
    "h5",
    "h6",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
  ]),
  ALLOWED_ATTR: ["href", "start", "data-fence"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
} as const;

// Code never passes through markup: a numbered placeholder stands for it, whatever its size.
const placeholder: RendererRule = (tokens, index, _options, env) => {
  const { content, info, map } = tokens[index] ?? { content: "", info: "", map: null };
  const { fences, starts } = env as { fences: Fence[]; starts: readonly number[] };
  const [first, last] = map ?? [0, 0];
  const language = /^[\w+#.-]{1,24}/.exec(info.trim())?.[0] ?? "";
  const end = starts[last] ?? starts[starts.length - 1] ?? 0;
  fences.push({ start: starts[first] ?? 0, end, language, code: content.replace(/\n$/, "") });
  return `<pre data-fence="${String(fences.length - 1)}"></pre>`;
};
parser.renderer.rules["fence"] = placeholder;
parser.renderer.rules["code_block"] = placeholder;
// The page's title and the question stand above: an answer's headings begin below them.
for (const rule of ["heading_open", "heading_close"]) {
  parser.renderer.rules[rule] = (tokens, index, options, _env, self) => {
    const token = tokens[index];
    if (token !== undefined) token.tag = `h${String(Math.min(6, Number(token.tag.charAt(1)) + 2))}`;
    return self.renderToken(tokens, index, options);
  };
}

export interface MarkdownDrawing {
  readonly drawFence: (fence: Fence) => Node;
  readonly openLink: (address: string) => void;
}

export function renderMarkdown(text: string, drawing: MarkdownDrawing): DocumentFragment {
  const fences: Fence[] = [];
  const env = { fences, starts: lineStarts(text) };
  const fragment = DOMPurify.sanitize(parser.render(text, env), {
    ...allowed,
    ALLOWED_TAGS: [...allowed.ALLOWED_TAGS],
    ALLOWED_ATTR: [...allowed.ALLOWED_ATTR],
  });
  for (const link of fragment.querySelectorAll("a")) replaceLink(link, drawing.openLink);
  showHiddenCharacters(fragment);
  for (const pre of fragment.querySelectorAll("pre")) {
    const fence = fences[Number(pre.getAttribute("data-fence"))];
    if (fence !== undefined) pre.replaceWith(drawing.drawFence(fence));
  }
  for (const table of fragment.querySelectorAll("table")) {
    const scroller = element("div", { class: "table", tabindex: "0" });
    table.replaceWith(scroller);
    scroller.appendChild(table);
  }
  return fragment;
}

/** An address is shown with its host and followed by the extension alone, which asks first. */
function replaceLink(link: HTMLAnchorElement, openLink: (address: string) => void): void {
  const address = link.getAttribute("href") ?? "";
  const host = URL.canParse(address) ? new URL(address).host : "";
  const text = link.textContent;
  if (host === "") {
    link.replaceWith(text);
    return;
  }
  const node = linkButton(strings.linkTo(text, host), () => openLink(address));
  node.title = strings.openLink(address);
  link.replaceWith(node);
}

// Soft hyphens, direction marks and overrides, zero-width characters and tags: what can make code read other than it is.
const hidden =
  /[\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\u3164\ufeff\uffa0\u{e0000}-\u{e007f}]/gu;

export function showHiddenCharacters(root: Node): void {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const texts: Text[] = [];
  while (walker.nextNode() !== null) {
    if (walker.currentNode instanceof Text && walker.currentNode.data.search(hidden) >= 0)
      texts.push(walker.currentNode);
  }
  for (const text of texts) text.replaceWith(...visibleParts(text.data));
}

function visibleParts(text: string): Node[] {
  const parts: Node[] = [];
  let at = 0;
  for (const match of text.matchAll(hidden)) {
    if (match.index > at) parts.push(document.createTextNode(text.slice(at, match.index)));
    const name = strings.hiddenCharacter(match[0].codePointAt(0) ?? 0);
    parts.push(element("span", { class: "hidden-character" }, name));
    at = match.index + match[0].length;
  }
  if (at < text.length) parts.push(document.createTextNode(text.slice(at)));
  return parts;
}
