// Owns: how messages of the extension change what the page shows. Pure: the same reducer of turns as on the other side.
import type { PanelState, ToQaPage } from "../../src/protocol/qa";
import { applyEvent } from "../../src/protocol/turn";

export const emptyPanel: PanelState = {
  workspace: "ready",
  engine: { state: "stopped", model: null, error: null, deviceLoss: null },
  coverage: null,
  changedFiles: 0,
  readAhead: null,
  scope: [],
  suggestions: [],
  turns: [],
  activeTurn: null,
};

export function reducePanel(state: PanelState, message: ToQaPage, nowMs: number): PanelState {
  switch (message.type) {
    case "state":
      return message.state;
    case "engine":
      return { ...state, engine: message.engine };
    case "readAhead":
      return { ...state, readAhead: message.reading };
    case "event": {
      const { turn: id, event, failureMessage } = message;
      const turns = state.turns.map((turn) => (turn.id === id ? applyEvent(turn, event, nowMs, failureMessage) : turn));
      const isEnd = event.type === "done" || event.type === "failed";
      return {
        ...state,
        turns,
        coverage: event.type === "plan" ? event.plan : state.coverage,
        activeTurn: isEnd && state.activeTurn === id ? null : state.activeTurn,
      };
    }
    case "focusQuestion":
      return state;
  }
}
