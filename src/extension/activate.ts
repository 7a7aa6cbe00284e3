// The extension's entry: it makes the parts and joins them; what they do stands in their own files. Nothing here reads a file of
// the workspace or starts the engine: that begins when a view is shown or a question asked.
import { commands, window, workspace } from "vscode";
import type { ExtensionContext } from "vscode";
import { ModelLibrary } from "../models/library";
import { failure } from "../protocol/errors";
import { createAsker } from "./answering";
import { Conversation } from "./conversation";
import { EngineAccess } from "./engineAccess";
import { registerFolderChoice } from "./folders";
import { installationOf } from "./installation";
import { registerModelCommands } from "./modelCommands";
import { ModelsTree, registerModelsView } from "./modelsView";
import { Preparation } from "./preparation";
import { qaView, QaPanel } from "./qaPanel";
import { Questions } from "./questions";
import { registerReadList } from "./readList";
import { Repository } from "./repository";
import { registerSelection } from "./selection";
import { registerStatusBar } from "./statusBar";
import { wordError } from "./words";

const foldersKey = "ringside.modelFolders";

export function activate(context: ExtensionContext): void {
  const log = window.createOutputChannel("Ringside", { log: true });
  const installation = installationOf(context);
  const engine = new EngineAccess(installation, log);
  const repository = new Repository(context.workspaceState);
  const preparation = new Preparation(repository, engine, log);
  const conversation = new Conversation(createAsker(repository, engine, preparation), wordError);
  const questions = new Questions(conversation);
  const panel = new QaPanel({ installation, conversation, questions, repository, engine, preparation, log });
  questions.attach(panel);
  const library = new ModelLibrary(installation.embeddedModel, {
    read: () => context.globalState.get<unknown>(foldersKey),
    write: (folders) => context.globalState.update(foldersKey, folders),
  });
  const tree = new ModelsTree(library, engine);

  // Another folder is another conversation's subject: what was read is gone, and a running question with it.
  const prepareAgain = (): void => {
    preparation.forget();
    void preparation.stop().then(() => {
      if (conversation.activeTurn === null) preparation.start();
    });
  };
  let wasAnswering = false;
  const tellAnswering = (): void => {
    const isAnswering = conversation.activeTurn !== null;
    if (isAnswering === wasAnswering) return;
    wasAnswering = isAnswering;
    void commands.executeCommand("setContext", "ringside.isAnswering", isAnswering);
  };
  context.subscriptions.push(
    log,
    engine,
    repository,
    preparation,
    panel,
    { dispose: conversation.listen({ onTurns: tellAnswering, onEvent: tellAnswering }) },
    window.registerWebviewViewProvider(qaView, panel),
    repository.onDidChangeFolders(() => {
      conversation.fail(failure("repository-gone").error);
      prepareAgain();
    }),
    repository.onDidChangeScope(() => prepareAgain()),
    workspace.onDidGrantWorkspaceTrust(() => prepareAgain()),
    commands.registerCommand("ringside.ask", (text: unknown) =>
      typeof text === "string" ? questions.ask(text) : panel.focus(),
    ),
    commands.registerCommand("ringside.stop", () => conversation.stop()),
    commands.registerCommand("ringside.newConversation", async () => {
      conversation.clear();
      await panel.focus();
    }),
    commands.registerCommand("ringside.showLog", () => log.show()),
    registerFolderChoice(repository),
    ...registerReadList(repository, preparation),
    ...registerSelection(questions, repository),
    ...registerModelsView(tree),
    ...registerModelCommands({ library, engine, tree }),
    ...registerStatusBar(engine),
  );
  // `npm start` asks for this. Installed by hand, the extension never opens its view uninvited.
  if (process.env["RINGSIDE_SHOW_PANEL"] === "1") void panel.focus();
}
