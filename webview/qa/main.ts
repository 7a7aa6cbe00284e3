// The Q&A page's entry. It draws what the extension tells, and tells what the user does; it knows nothing else.
import { Host } from "../shared/host";
import { registerToolkit } from "../shared/toolkit";
import { QaPage } from "./page";
import { emptyPanel, reducePanel } from "./panelState";
import "./qa.css";

const main = document.querySelector("main");
if (main === null) throw new Error("The page has no main element.");

registerToolkit();
const host = new Host();
const page = new QaPage(main, host, emptyPanel);
host.listen((message) => {
  if (message.type === "focusQuestion") page.focusQuestion(message.text, message.exhaustive);
  else page.update(reducePanel(page.state, message, Date.now()));
});
host.post({ type: "ready" });
