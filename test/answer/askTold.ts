// Owns: one question with everything that was told of it.
import assert from "node:assert/strict";
import { ask } from "../../src/answer/ask";
import type { AskDependencies, AskInput, AskOutcome } from "../../src/answer/ask";
import type { AskEvent } from "../../src/protocol/qa";

export interface Told extends AskOutcome {
  readonly events: readonly AskEvent[];
}

export interface Listening {
  readonly onEvent?: ((event: AskEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export async function askTold(
  input: AskInput,
  dependencies: AskDependencies,
  { onEvent, signal }: Listening = {},
): Promise<Told> {
  const events: AskEvent[] = [];
  const sink = (event: AskEvent): void => {
    events.push(event);
    onEvent?.(event);
  };
  const outcome = await ask(input, dependencies, sink, signal);
  assert.ok(["done", "failed"].includes(events.at(-1)?.type ?? ""), "the last event ends the question");
  return { ...outcome, events };
}
