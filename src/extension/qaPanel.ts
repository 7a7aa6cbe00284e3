// Owns: the Q&A view: its page, what goes to it and what comes from it. The page may vanish at any moment and come back; everything
// it shows is kept elsewhere. Must never act on anything but a message that the protocol's parser let through.
import { randomBytes } from "node:crypto";
import { commands, env, l10n, Uri, window } from "vscode";
import type { CancellationToken, LogOutputChannel, WebviewView, WebviewViewProvider } from "vscode";
import type { WebviewViewResolveContext } from "vscode";
import { isFound } from "../protocol/qa";
import type { FromQaPage, PanelState, ReadingProgress, ToQaPage } from "../protocol/qa";
import { parseFromQaPage } from "../protocol/validateQa";
import type { Conversation } from "./conversation";
import type { EngineAccess } from "./engineAccess";
import { EventQueue } from "./eventQueue";
import type { Installation } from "./installation";
import { openPlace } from "./openPlace";
import { buildPage } from "./page";
import type { Preparation } from "./preparation";
import type { Questions } from "./questions";
import type { Repository } from "./repository";
import { workspaceState } from "./trust";
import type { Disposable } from "./disposable";

export const qaView = "ringside.qa";

export interface PanelParts {
  readonly installation: Installation;
  readonly conversation: Conversation;
  readonly questions: Questions;
  readonly repository: Repository;
  readonly engine: EngineAccess;
  readonly preparation: Preparation;
  readonly log: LogOutputChannel;
}

export class QaPanel implements WebviewViewProvider, Disposable {
  readonly #parts: PanelParts;
  readonly #queue: EventQueue;
  readonly #subscriptions: Disposable[] = [];
  #view: WebviewView | null = null;
  /** The page has told that it listens. */
  #isListening = false;
  /** Waits for a page that is not there yet. */
  #focusText: string | null | undefined;
  #focusExhaustive = false;

  constructor(parts: PanelParts) {
    this.#parts = parts;
    this.#queue = new EventQueue((message) => this.#post(message));
    const { conversation, repository, engine, preparation } = parts;
    const stopListening = conversation.listen({
      onTurns: () => this.#sendState(),
      onEvent: (turn, event, failureMessage) => {
        if (!this.#isListening) return;
        this.#queue.push({ type: "event", turn, event, ...(failureMessage === undefined ? {} : { failureMessage }) });
      },
    });
    this.#subscriptions.push(
      { dispose: stopListening },
      repository.onDidChangeScope(() => this.#sendState()),
      preparation.onDidChange(() => this.#sendState()),
      engine.onDidChange((status) => this.#post({ type: "engine", engine: status })),
      engine.onDidRead((reading) => {
        if (conversation.activeTurn === null) this.#post({ type: "readAhead", reading });
      }),
    );
  }

  resolveWebviewView(view: WebviewView, _context: WebviewViewResolveContext, _token: CancellationToken): void {
    const { pages } = this.#parts.installation;
    const { webview } = view;
    this.#view = view;
    this.#isListening = false;
    webview.options = {
      enableScripts: true,
      enableForms: false,
      enableCommandUris: false,
      localResourceRoots: [pages],
    };
    webview.onDidReceiveMessage((value: unknown) => this.#receive(value));
    view.onDidChangeVisibility(() => {
      // A hidden page is destroyed; the next one says when it listens.
      if (!view.visible) this.#isListening = false;
    });
    view.onDidDispose(() => {
      if (this.#view !== view) return;
      this.#view = null;
      this.#isListening = false;
    });
    webview.html = buildPage({
      cspSource: webview.cspSource,
      scriptUri: webview.asWebviewUri(Uri.joinPath(pages, "qa.js")).toString(),
      styleUri: webview.asWebviewUri(Uri.joinPath(pages, "qa.css")).toString(),
      nonce: randomBytes(16).toString("base64"),
      language: env.language,
      title: l10n.t("Ringside: questions about this folder"),
    });
  }

  /** Shows the view and puts the cursor into the question box; `text`, if given, becomes the question's beginning; `exhaustive`: it is meant for every file. */
  async focus(text: string | null = null, exhaustive = false): Promise<void> {
    this.#focusText = text;
    this.#focusExhaustive = exhaustive;
    await commands.executeCommand(`${qaView}.focus`);
    this.#sendFocus();
  }

  async show(): Promise<void> {
    if (this.#view?.visible === true) return;
    await commands.executeCommand(`${qaView}.focus`);
  }

  state(): PanelState {
    const { conversation, engine, preparation, repository } = this.#parts;
    return {
      workspace: workspaceState(),
      engine: engine.port.status(),
      coverage: preparation.coverage,
      changedFiles: preparation.changedFiles,
      readAhead: this.#readAhead(),
      scope: repository.scope,
      suggestions: preparation.suggestions,
      turns: conversation.turns,
      activeTurn: conversation.activeTurn,
    };
  }

  /** What is read for a question its turn tells. */
  #readAhead(): ReadingProgress | null {
    const { conversation, engine } = this.#parts;
    return conversation.activeTurn === null ? engine.reading : null;
  }

  #sendState(): void {
    // What waits is part of the state.
    this.#queue.clear();
    this.#post({ type: "state", state: this.state() });
  }

  #sendFocus(): void {
    if (!this.#isListening || this.#focusText === undefined) return;
    const text = this.#focusText;
    const exhaustive = this.#focusExhaustive;
    this.#focusText = undefined;
    this.#post({ type: "focusQuestion", ...(text === null ? {} : { text }), ...(exhaustive ? { exhaustive } : {}) });
  }

  #post(message: ToQaPage): void {
    if (this.#isListening) void this.#view?.webview.postMessage(message);
  }

  #receive(value: unknown): void {
    const message = parseFromQaPage(value);
    if (message === null) {
      this.#parts.log.warn("the Q&A page sent something that is no message");
      return;
    }
    this.#act(message).catch((cause: unknown) => this.#parts.log.error(`${message.type}: ${String(cause)}`));
  }

  async #act(message: FromQaPage): Promise<void> {
    const { conversation, questions, log } = this.#parts;
    switch (message.type) {
      case "ready":
        this.#isListening = true;
        this.#sendState();
        this.#sendFocus();
        // A question reads by itself, and both would read the same repository.
        if (conversation.activeTurn === null) this.#parts.preparation.start();
        return;
      case "ask":
        await questions.ask(message.text, message.effort, [], message.exhaustive);
        return;
      case "stop":
        await commands.executeCommand("ringside.stop");
        return;
      case "openCitation":
        return this.#openCitation(message.turn, message.citation);
      case "openRefusalPlace":
        return this.#openRefusalPlace(message.turn, message.place);
      case "readRefusalPlace":
        return this.#readRefusalPlace(message.turn, message.place);
      case "openLink":
        return openLink(message.href);
      case "copy":
        return env.clipboard.writeText(message.text);
      case "violation":
        log.error(`content security policy violation: ${message.directive} ${message.blocked}`);
        return;
      case "chooseFolders":
      case "outlineFolders":
      case "showContext":
      case "showFiles":
      case "openFolder":
      case "newConversation":
      case "openLog":
      case "restartEngine":
      case "manageTrust":
        await commands.executeCommand(commandOf[message.type]);
    }
  }

  async #openCitation(turn: number, id: number): Promise<void> {
    const citation = this.#parts.conversation.turn(turn)?.citations.find((candidate) => candidate.id === id);
    const { open } = this.#parts.repository;
    if (citation !== undefined && isFound(citation) && open !== null) {
      await openPlace(open.files, citation);
    }
  }

  async #openRefusalPlace(turn: number, index: number): Promise<void> {
    const place = this.#parts.conversation.turn(turn)?.refusal?.places[index];
    const { open } = this.#parts.repository;
    if (place === undefined || open === null) return;
    await openPlace(open.files, { path: place.path, startLine: place.line, endLine: place.line });
  }

  /** Asks the same question again, with the file in what is read. */
  async #readRefusalPlace(turn: number, index: number): Promise<void> {
    const refused = this.#parts.conversation.turn(turn);
    const place = refused?.refusal?.places[index];
    if (refused === undefined || place === undefined) return;
    await this.#parts.questions.ask(refused.question, "high", [place.path]);
  }

  dispose(): void {
    this.#queue.clear();
    for (const subscription of this.#subscriptions) subscription.dispose();
  }
}

const commandOf = {
  chooseFolders: "ringside.chooseFolders",
  outlineFolders: "ringside.outlineFolders",
  showContext: "ringside.context.focus",
  showFiles: "ringside.showFiles",
  openFolder: "workbench.action.files.openFolder",
  newConversation: "ringside.newConversation",
  openLog: "ringside.showLog",
  restartEngine: "ringside.restartEngine",
  manageTrust: "workbench.trust.manage",
} as const;

/** The address is the model's: it is shown in full, as the browser will read it, and only web addresses are offered at all. */
async function openLink(written: string): Promise<void> {
  if (!URL.canParse(written)) return;
  const { protocol, href } = new URL(written);
  if (protocol !== "http:" && protocol !== "https:") return;
  const open = l10n.t("Open");
  const question = l10n.t("Open this address from the answer in your browser?");
  const chosen = await window.showWarningMessage(question, { modal: true, detail: href }, open);
  if (chosen === open) await env.openExternal(Uri.parse(href, true));
}
