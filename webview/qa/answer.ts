// Owns: drawing an answer while it grows: finished blocks stay, only the open end is drawn again. Drawing the whole text at once
// gives the same nodes. Must never draw a citation as found that was not found.
import { isFound } from "../../src/protocol/qa";
import type { Citation } from "../../src/protocol/qa";
import { element, icon, linkButton } from "../shared/element";
import { button } from "../shared/toolkit";
import { markdownParser, renderMarkdown, showHiddenCharacters } from "../shared/markdown";
import type { Fence } from "../shared/markdown";
import { blocksFrom, settledBlocks } from "../shared/markdownBlocks";
import type { Block } from "../shared/markdownBlocks";
import { strings } from "../shared/strings";

export interface AnswerActions {
  readonly openCitation: (citation: number) => void;
  readonly openLink: (address: string) => void;
  readonly copy: (text: string) => void;
}

const copiedMs = 1_500;

export class AnswerView {
  readonly element = element("div", { class: "answer" });
  readonly #actions: AnswerActions;
  #text = "";
  #citations: readonly Citation[] = [];
  /** Up to here the text is drawn for good, by the first #settled children. */
  #settledEnd = 0;
  #settled = 0;

  constructor(actions: AnswerActions) {
    this.#actions = actions;
  }

  update(text: string, citations: readonly Citation[]): void {
    if (text === this.#text && citations === this.#citations) return;
    // Citations come once, at the end; a text that does not go on from the last one is another answer.
    if (citations !== this.#citations || !text.startsWith(this.#text)) this.#clear();
    this.#text = text;
    this.#citations = citations;
    while (this.element.childNodes.length > this.#settled) this.element.lastChild?.remove();
    for (const block of settledBlocks(markdownParser, text, this.#settledEnd)) {
      this.#draw(block);
      this.#settled += 1;
      this.#settledEnd = block.end;
    }
    for (const block of blocksFrom(markdownParser, text, this.#settledEnd)) this.#draw(block);
  }

  #clear(): void {
    this.element.replaceChildren();
    this.#settledEnd = 0;
    this.#settled = 0;
  }

  #draw(block: Block): void {
    const cited = this.#citations.filter(({ offset }) => offset >= block.start && offset < block.end);
    const blocks = cited.filter(({ kind }) => kind === "block");
    const fragment = renderMarkdown(this.#text.slice(block.start, block.end), {
      drawFence: (fence) =>
        this.#drawFence(
          fence,
          blocks.find(({ offset }) => contains(fence, offset - block.start)),
        ),
      openLink: this.#actions.openLink,
    });
    const node = element("div", { class: "block" });
    node.appendChild(fragment);
    this.#linkPaths(
      node,
      cited.filter(({ kind }) => kind === "path"),
    );
    this.element.appendChild(node);
  }

  #drawFence({ language, code }: Fence, citation: Citation | undefined): HTMLElement {
    const place = element("div", { class: "place" });
    if (citation !== undefined) place.append(...this.#citationNodes(citation, false));
    const tag = language === "" ? null : element("span", { class: "language" }, language);
    const caption = element("figcaption", {}, place, tag, this.#copyButton(code));
    const text = element("code", {}, code);
    showHiddenCharacters(text);
    const status = citation === undefined ? "code" : `code ${citation.status}`;
    return element("figure", { class: status }, caption, element("pre", { tabindex: "0" }, text));
  }

  #copyButton(code: string): HTMLElement {
    const node = button(
      {
        kind: "icon",
        label: strings.copy,
        onClick: () => {
          this.#actions.copy(code);
          node.replaceChildren(icon("done"));
          node.title = strings.copied;
          setTimeout(() => {
            node.replaceChildren(icon("copy"));
            node.title = strings.copy;
          }, copiedMs);
        },
      },
      icon("copy"),
    );
    node.classList.add("copy");
    return node;
  }

  /** The place as a link, then what the check found out about it. */
  #citationNodes(citation: Citation, isInline: boolean): Node[] {
    const { id, path, startLine, endLine, status, namedPath, candidates, stale } = citation;
    const nodes: Node[] = [];
    if (isFound(citation)) {
      const place = strings.place(path, startLine, endLine);
      const link = linkButton(place, () => this.#actions.openCitation(id), `citation ${status}`);
      link.title = strings.openPlace(place);
      nodes.push(link);
    }
    const notes = [
      ...(status === "verified" && !isInline ? [strings.verified] : []),
      // A path is corrected together with the quote that follows it, where the whole of it is told.
      ...(status === "relocated" ? [isInline ? strings.corrected : strings.relocated(namedPath)] : []),
      ...(status === "earlier" ? [strings.earlier(path)] : []),
      ...(status === "not-found" ? [strings.notFound] : []),
      ...(candidates > 1 && !isInline ? [strings.otherPlaces(candidates - 1)] : []),
    ];
    if (notes.length > 0) nodes.push(element("span", { class: `note ${status}` }, notes.join(" · ")));
    if (stale) nodes.push(element("span", { class: "note stale" }, strings.stale));
    return nodes;
  }

  /** Puts a link where each path is written; the paths come in the order of the text. */
  #linkPaths(root: HTMLElement, citations: readonly Citation[]): void {
    let searchFrom: Text | null = null;
    for (const citation of citations) {
      const written = this.#text.slice(citation.offset, citation.offset + citation.length);
      const name = written.replace(/^`+\s?|\s?`+$/g, "").trim();
      const found = findText(root, name, written.startsWith("`"), searchFrom);
      if (found === null) continue;
      const link = element("span", { class: "path" });
      if (!isFound(citation)) link.append(element("code", {}, name));
      link.append(...this.#citationNodes(citation, true));
      const target = found.parentElement?.tagName === "CODE" ? found.parentElement : found;
      target.replaceWith(link);
      searchFrom = lastText(link);
    }
  }
}

function contains({ start, end }: Fence, offset: number): boolean {
  return offset >= start && offset < end;
}

/** The text node that is exactly `name`, split off where it is part of a sentence; after `after`, outside code blocks. */
function findText(root: HTMLElement, name: string, isCode: boolean, after: Text | null): Text | null {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  if (after !== null) walker.currentNode = after;
  while (name !== "" && walker.nextNode() !== null) {
    const text = walker.currentNode;
    if (!(text instanceof Text) || text.parentElement?.closest("pre, button, figure") !== null) continue;
    if (isCode) {
      if (text.parentElement.tagName === "CODE" && text.data.trim() === name) return text;
      continue;
    }
    const at = text.data.indexOf(name);
    if (at < 0) continue;
    const found = text.splitText(at);
    if (found.length > name.length) found.splitText(name.length);
    return found;
  }
  return null;
}

function lastText(root: Node): Text | null {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  let last: Text | null = null;
  while (walker.nextNode() !== null) if (walker.currentNode instanceof Text) last = walker.currentNode;
  return last;
}
