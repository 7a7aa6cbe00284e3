// Owns: the chat format of this model family, byte for byte (it was trained on exactly this), and where the prompt is cut into
// pieces. Must never turn text of a file, a question or an answer into a special token.
import { fileCloseTag, fileOpenTag, fileSeparator, segmentBody } from "../context/segment";
import type { ContextSegment } from "../context/segment";
import type { Prompt, PromptPart, PromptPiece } from "../protocol/engine";

export const systemText = "You answer questions about the repository below. Name the file and quote the code exactly.";

/** An earlier question with its answer, without the reasoning. */
export interface HistoryTurn {
  readonly question: string;
  readonly answer: string;
}

export interface PromptRequest {
  readonly repository: string;
  readonly segments: readonly Pick<ContextSegment, "path" | "text" | "kind">[];
  readonly history: readonly HistoryTurn[];
  readonly question: string;
  /** What the answer begins with; see {@link AnswerStart}. */
  readonly start: AnswerStart;
}

/**
 * "open": the model decides, and begins with its reasoning. "closed": the reasoning is closed before it began. The family's
 * own switch, "detailed thinking off" in the system message, would change the first tokens and with them the whole kept state.
 * `{ reasoning }`: it ends here, and the answer follows.
 */
export type AnswerStart = "open" | "closed" | { readonly reasoning: string };

const special = (token: string): PromptPart => ({ special: token });
const text = (characters: string): PromptPart => ({ text: characters });
const role = (name: string): PromptPart[] => [special("<role>"), text(name), special("</role>")];
const endOfRole = special("<|role_end|>");

/** Cut before each file, after the base's last file and after the last file of all. What follows the base never changes its bytes. */
export function buildPrompt(request: PromptRequest): Prompt {
  const base = request.segments.filter(({ kind }) => kind === "base");
  const supplement = request.segments.filter(({ kind }) => kind === "supplement");
  const head: PromptPiece = { parts: headParts(request.repository) };
  const basePieces = [head, ...base.map((file, index) => filePiece(file, index < base.length - 1))];
  const supplementPieces = supplement.map((file, index) => filePiece(file, index < supplement.length - 1));
  const joint: PromptPiece[] = base.length > 0 && supplement.length > 0 ? [{ parts: [text(fileSeparator)] }] : [];
  return {
    pieces: [...basePieces, ...joint, ...supplementPieces, { parts: tailParts(request) }],
    basePieces: basePieces.length,
  };
}

/** What stands before the first file, to be counted. */
export function headTokenText(repository: string): string {
  return `SYSTEM${systemText}\ndetailed thinking onHUMAN# Repository ${oneLine(repository)}\n\n`;
}

function headParts(repository: string): PromptPart[] {
  return [
    ...role("SYSTEM"),
    text(`${systemText}\ndetailed thinking on`),
    endOfRole,
    ...role("HUMAN"),
    text(`# Repository ${oneLine(repository)}\n\n`),
  ];
}

function filePiece(file: { readonly path: string; readonly text: string }, isFollowed: boolean): PromptPiece {
  const parts = [special(fileOpenTag), text(segmentBody(file.path, file.text)), special(fileCloseTag)];
  return { parts: isFollowed ? [...parts, text(fileSeparator)] : parts };
}

function tailParts({ history, question, start }: PromptRequest): PromptPart[] {
  const questions = [...history.map((turn) => turn.question), question];
  const parts: PromptPart[] = [];
  for (const [index, asked] of questions.entries()) {
    if (index === 0) parts.push(text(`\n\n${asked}`));
    else parts.push(...role("HUMAN"), text(asked));
    parts.push(endOfRole, ...role("ASSISTANT"));
    const earlier = history[index];
    if (earlier !== undefined) parts.push(text(earlier.answer), endOfRole);
  }
  return [...parts, ...startParts(start)];
}

function startParts(start: AnswerStart): PromptPart[] {
  if (start === "open") return [];
  const reasoning = start === "closed" ? "" : start.reasoning;
  return [special("<think>"), text(`\n${reasoning}\n`), special("</think>"), text("\n\n")];
}

function oneLine(name: string): string {
  return name.replace(/\p{Cc}+/gu, " ");
}
