// Owns: what the page shows before the first question: what the model can do, three questions about this folder, and what is
// missing when there is no folder or no trust.
import type { PanelState } from "../../src/protocol/qa";
import { element, linkButton } from "../shared/element";
import { strings } from "../shared/strings";
import { button } from "../shared/toolkit";

export interface WelcomeActions {
  readonly openFolder: () => void;
  readonly manageTrust: () => void;
  readonly ask: (text: string) => void;
}

export function drawWelcome(state: PanelState, actions: WelcomeActions): HTMLElement {
  const welcome = element("section", { class: "welcome" });
  if (state.workspace === "none") {
    welcome.append(
      element("p", {}, strings.noFolder),
      button({ kind: "primary", onClick: actions.openFolder }, strings.openFolder),
    );
    return welcome;
  }
  if (state.workspace === "restricted") welcome.append(drawRestricted(actions));
  welcome.append(element("h2", {}, strings.title), element("p", { class: "abilities" }, strings.abilities));
  if (state.suggestions.length > 0) {
    welcome.append(element("h3", {}, strings.examples));
    const list = element("ul", { class: "suggestions" });
    for (const text of state.suggestions) {
      list.append(
        element(
          "li",
          {},
          linkButton(text, () => actions.ask(text), "suggestion"),
        ),
      );
    }
    welcome.append(list);
  }
  return welcome;
}

function drawRestricted(actions: WelcomeActions): HTMLElement {
  const trust = linkButton(strings.manageTrust, actions.manageTrust);
  return element("p", { class: "restricted" }, strings.restricted, " ", trust);
}
