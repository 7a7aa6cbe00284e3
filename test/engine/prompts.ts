// Owns: the requests that the engine's tests make.
import type { LoadRequest, Prompt } from "../../src/protocol/engine";

export function loadRequest(folder: string, changes: Partial<LoadRequest> = {}): LoadRequest {
  return {
    folder,
    backend: "cpu",
    threads: 2,
    slopeForm: "A",
    isa: "",
    kvFormat: "bf16",
    deviceMemoryBytes: 0,
    device: -1,
    ...changes,
  };
}

/** A repository's base of about `baseCharacters` characters and a question after it. */
export function promptOf(baseCharacters: number, question: string): Prompt {
  const line = "the quick brown fox jumps over the lazy dog 0123456789\n";
  const text = line.repeat(Math.ceil(baseCharacters / line.length)).slice(0, baseCharacters);
  return {
    pieces: [
      { parts: [{ special: "<role>" }, { text: "HUMAN" }, { special: "</role>" }, { text: "# Repository\n\n" }] },
      { parts: [{ special: '<file path="' }, { text: 'a.txt">\n' }, { text }, { special: "</file>" }] },
      { parts: [{ text: `\n\n${question}` }, { special: "<|role_end|>" }] },
    ],
    basePieces: 2,
  };
}

export const greedy = { temperature: 0, topP: 1, repetitionPenalty: 1, seed: 1 } as const;
