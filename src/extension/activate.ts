// The extension's entry: it makes the parts and joins them; what they do stands in their own files. Nothing here reads a file of
// the workspace or starts the engine: that begins when a view is shown, a question asked, or the editor has been idle for a while.
import { commands, window } from "vscode";
import type { ExtensionContext } from "vscode";
import { factsFromWorker } from "../context/factSources";
import { ModelLibrary } from "../models/library";
import { createContextWorker } from "../worker/client";
import { createAsker } from "./answering";
import { BackgroundReading } from "./backgroundReading";
import { registerContextView } from "./contextCommands";
import { ContextTree } from "./contextView";
import { Conversation } from "./conversation";
import { forgetDeleted, registerDeleteAllData } from "./deleteAllData";
import { EngineAccess } from "./engineAccess";
import { registerFolderChoice } from "./folders";
import { installationOf } from "./installation";
import { workspaceLayouts } from "./layouts";
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
  const startMs = performance.now();
  forgetDeleted(context.workspaceState, context.globalState);
  const log = window.createOutputChannel("Ringside", { log: true });
  const installation = installationOf(context);
  const engine = new EngineAccess(installation, log);
  const worker = createContextWorker({ script: installation.contextWorker, log: (line) => log.warn(line) });
  const layouts = workspaceLayouts(installation);
  const repository = new Repository(context.workspaceState, { ...factsFromWorker(worker), layouts });
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
  const contextTree = new ContextTree(repository, preparation, (message) => log.warn(`context view: ${message}`));

  const background = new BackgroundReading({ repository, engine, preparation, conversation });
  context.subscriptions.push(
    log,
    engine,
    worker,
    repository,
    preparation,
    background,
    panel,
    window.registerWebviewViewProvider(qaView, panel),
    commands.registerCommand("ringside.ask", (text: unknown) =>
      typeof text === "string" ? questions.ask(text) : panel.focus(),
    ),
    commands.registerCommand("ringside.askEveryFile", () => panel.focus(null, true)),
    commands.registerCommand("ringside.stop", () => background.stop()),
    commands.registerCommand("ringside.newConversation", async () => {
      conversation.clear();
      await panel.focus();
    }),
    commands.registerCommand("ringside.showLog", () => log.show()),
    ...registerFolderChoice(repository),
    ...registerContextView({
      tree: contextTree,
      repository,
      preparation,
      planAgain: () => background.planAgain(),
    }),
    registerDeleteAllData({
      folder: installation.storage,
      workspaceState: context.workspaceState,
      globalState: context.globalState,
      readAhead: background.readAhead,
      ...{ conversation, engine, preparation, repository },
    }),
    ...registerReadList(repository, preparation),
    ...registerSelection(questions, repository),
    ...registerModelsView(tree),
    ...registerModelCommands({ library, engine, tree }),
    ...registerStatusBar(engine),
  );
  log.debug(`activated in ${(performance.now() - startMs).toFixed(1)} ms`);
  // `npm start` asks for this. Installed by hand, the extension never opens its view uninvited.
  if (process.env["RINGSIDE_SHOW_PANEL"] === "1") void panel.focus();
}
