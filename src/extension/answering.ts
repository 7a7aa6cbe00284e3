// Owns: joining a question of the conversation with the repository and the engine.
import { ask } from "../answer/ask";
import { failure, nativeErrorKinds, RingsideFailure } from "../protocol/errors";
import type { RingsideError } from "../protocol/errors";
import type { AskEvent } from "../protocol/qa";
import type { Asker } from "./conversation";
import type { EngineAccess } from "./engineAccess";
import type { Preparation } from "./preparation";
import type { Repository } from "./repository";
import { repositoryName } from "./trust";

export function createAsker(repository: Repository, engine: EngineAccess, preparation: Preparation): Asker {
  return async (question, sink, signal) => {
    // Both use the same repository and engine; what a question does prepares as well.
    await preparation.stop();
    const { open } = repository;
    if (open === null) {
      sink({ type: "failed", error: failure("repository-gone").error });
      return;
    }
    const load = engine.loadRequest();
    let isLoading = true;
    const watch = (event: AskEvent): void => {
      if (event.type === "phase" && event.phase === "planning") isLoading = false;
      if (event.type === "reading") engine.noteReading(event);
      else if (event.type !== "scan") engine.noteReading(null);
      if (event.type === "failed" && isLoading && isOfModel(event.error)) {
        engine.noteLoadFailure(load.folder, new RingsideFailure(event.error));
      }
      sink(event);
    };
    const noteRead = preparation.markChanges();
    const outcome = await ask(
      { ...question, scope: repository.scope, choices: repository.choices, ranking: "first" },
      { context: open.context, engine: engine.port, load, repository: repositoryName() },
      watch,
      signal,
    );
    // Other folders may be open by now, of which this plan says nothing.
    if (outcome.plan === null || repository.open !== open) return;
    preparation.learn(outcome.plan);
    if (outcome.stats !== null) noteRead();
  };
}

function isOfModel({ kind }: RingsideError): boolean {
  return (nativeErrorKinds as readonly string[]).includes(kind);
}
