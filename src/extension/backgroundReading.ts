// Owns: what starts, wakes and stops the reading that nobody asked for: files and choices that change, keys that are pressed,
// questions that begin and end. Must never read beside a question.
import { commands, workspace } from "vscode";
import { failure } from "../protocol/errors";
import type { Conversation } from "./conversation";
import type { EngineAccess } from "./engineAccess";
import { FolderWatch } from "./folderWatch";
import { runsOnBattery } from "./power";
import type { Preparation } from "./preparation";
import { ReadAhead } from "./readAhead";
import type { Repository } from "./repository";
import { readSettings, section } from "./settings";
import { workspaceState } from "./trust";
import type { Disposable } from "./disposable";

export interface BackgroundParts {
  readonly repository: Repository;
  readonly engine: EngineAccess;
  readonly preparation: Preparation;
  readonly conversation: Conversation;
}

export class BackgroundReading implements Disposable {
  readonly readAhead: ReadAhead;
  readonly #parts: BackgroundParts;
  readonly #subscriptions: readonly Disposable[];

  constructor(parts: BackgroundParts) {
    const { repository, engine, preparation, conversation } = parts;
    this.#parts = parts;
    this.readAhead = new ReadAhead({
      mode: () => readSettings().readAhead,
      mayRead: () => conversation.activeTurn === null && workspaceState() === "ready",
      onBattery: runsOnBattery,
      read: (isSettled) => preparation.readAhead(isSettled),
    });
    const tellReading = changesOf((isReading) => {
      void commands.executeCommand("setContext", "ringside.isReading", isReading);
    });
    const tellAnswering = changesOf((isAnswering) => {
      void commands.executeCommand("setContext", "ringside.isAnswering", isAnswering);
      // Who stopped a question does not want its reading to go on.
      if (!isAnswering && conversation.turns.at(-1)?.doneReason !== "stopped") this.readAhead.resume();
    });
    const noteTurn = (): void => tellAnswering(conversation.activeTurn !== null);
    const watch = new FolderWatch(repository);
    this.#subscriptions = [
      this.readAhead,
      watch,
      watch.onDidChange((path) => {
        if (!preparation.noteChange(path)) return;
        repository.open?.context.noteChange(path);
        this.readAhead.wake();
      }),
      { dispose: conversation.listen({ onTurns: noteTurn, onEvent: noteTurn }) },
      engine.onDidRead((reading) => tellReading(reading !== null)),
      repository.onDidChangeFolders(() => {
        conversation.fail(failure("repository-gone").error);
        this.#beginAnew();
      }),
      repository.onDidChangeScope(() => this.#beginAnew()),
      repository.onDidChangeChoices(() => this.planAgain()),
      workspace.onDidGrantWorkspaceTrust(() => this.#beginAnew()),
      workspace.onDidChangeTextDocument(({ document }) => {
        if (repository.open !== null && repository.open.files.pathOf(document.uri) !== null) this.readAhead.postpone();
      }),
      workspace.onDidChangeConfiguration((event) => {
        if (event.affectsConfiguration(section)) this.readAhead.wake();
      }),
    ];
    this.readAhead.wake();
  }

  /** What is planned is not what is wanted any more. */
  planAgain(): void {
    const { preparation, conversation } = this.#parts;
    void preparation.stop().then(() => {
      if (conversation.activeTurn === null) preparation.start();
    });
    this.readAhead.wake();
  }

  /** The user's stop: of a question, and of reading without one, until the next question. */
  async stop(): Promise<void> {
    const { preparation, conversation } = this.#parts;
    conversation.stop();
    if (!preparation.isReading) return;
    this.readAhead.pause();
    await preparation.stop();
  }

  /** Another folder is another conversation's subject: what was read is gone. */
  #beginAnew(): void {
    this.#parts.preparation.forget();
    this.planAgain();
  }

  dispose(): void {
    for (const subscription of this.#subscriptions) subscription.dispose();
  }
}

/** Tells of a value only when it is another than before; it begins as false. */
function changesOf(tell: (value: boolean) => void): (value: boolean) => void {
  let last = false;
  return (value) => {
    if (value === last) return;
    last = value;
    tell(value);
  };
}
