// Owns: the box under an answer that says "could not find": where the name really stands, by plain text search.
import type { RefusalCheck } from "../../src/protocol/qa";
import { element, linkButton } from "../shared/element";
import { strings } from "../shared/strings";

export interface RefusalActions {
  readonly openPlace: (place: number) => void;
  readonly readPlace: (place: number) => void;
}

/** `searchedFiles`: null when it is not known how many there are. */
export function drawRefusal(refusal: RefusalCheck, searchedFiles: number | null, actions: RefusalActions): HTMLElement {
  const name = element("code", {}, refusal.name);
  if (refusal.places.length === 0) {
    return element("div", { class: "refusal" }, element("p", {}, name, strings.refusalNowhere(searchedFiles)));
  }
  const lines = refusal.places.map(({ path, line, wasRead }, index) => {
    const place = strings.place(path, line, line);
    const link = linkButton(place, () => actions.openPlace(index), "citation");
    link.title = strings.openPlace(place);
    const text = index === 0 ? [name, strings.refusalPlace] : [strings.refusalAlso];
    if (wasRead) return element("p", {}, ...text, link, strings.refusalRead);
    const readIt = linkButton(strings.refusalReadIt, () => actions.readPlace(index), "link read-it");
    return element("p", {}, ...text, link, `${strings.refusalUnread} · `, readIt);
  });
  return element("div", { class: "refusal" }, ...lines);
}
