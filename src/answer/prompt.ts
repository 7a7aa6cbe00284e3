// Owns: the chat format of this model family, byte for byte (it was trained on exactly this), and where the prompt is cut into
// pieces. Must never turn text of a file, a question or an answer into a special token.
import { fileCloseTag, fileOpenTag, fileSeparator, oneLine, segmentBody } from "../context/segment";
import type { PromptSegment } from "../context/segment";
import type { Prompt, PromptPart, PromptPiece } from "../protocol/engine";

export const systemText = "You answer questions about the repository below. Name the file and quote the code exactly.";

/** An earlier question with its answer, without the reasoning. */
export interface HistoryTurn {
  readonly question: string;
  readonly answer: string;
}

export interface PromptRequest {
  readonly repository: string;
  readonly segments: readonly PromptSegment[];
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

/**
 * Cut before each file and each delta, after the base's last file and after the last file of all. What follows the base never
 * changes its bytes, nor does what follows a delta change those before.
 */
export function buildPrompt(request: PromptRequest): Prompt {
  const standing = standingPieces(request);
  const supplement = request.segments.filter(({ kind }) => kind === "supplement");
  const supplementPieces = supplement.map((segment, index) => segmentPiece(segment, index < supplement.length - 1));
  const isJoined = standing.pieces.length > 1 && supplement.length > 0;
  const joint: PromptPiece[] = isJoined ? [{ parts: [text(fileSeparator)] }] : [];
  return { ...standing, pieces: [...standing.pieces, ...joint, ...supplementPieces, { parts: tailParts(request) }] };
}

/** What all questions about a repository have in common: the beginning of their prompts, to be read before one is asked. */
export function standingPieces({ repository, segments }: Pick<PromptRequest, "repository" | "segments">): Prompt {
  const base = segments.filter(({ kind }) => kind === "base");
  const deltas = segments.filter(({ kind }) => kind === "delta");
  const head: PromptPiece = { parts: headParts(repository) };
  const basePieces = [head, ...base.map((segment, index) => segmentPiece(segment, index < base.length - 1))];
  return {
    pieces: [...basePieces, ...deltas.map((segment) => segmentPiece(segment, false))],
    basePieces: basePieces.length,
    deltaPieces: deltas.length,
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

function segmentPiece({ note, file }: PromptSegment, isFollowed: boolean): PromptPiece {
  const parts = note === "" ? [] : [text(note)];
  if (file !== null) parts.push(special(fileOpenTag), text(segmentBody(file.path, file.text)), special(fileCloseTag));
  if (isFollowed) parts.push(text(fileSeparator));
  return { parts };
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
