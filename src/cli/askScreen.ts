// Owns: how one question looks in a terminal: a progress line, the reasoning dimmed, the answer, and what was checked.
// Must never write anything but plain text that came through printable(), save its own few control sequences.
import type { AskOutcome } from "../answer/ask";
import type { AskEvent, Citation, RefusalCheck, ShardProgress } from "../protocol/qa";
import { printable } from "./pack";
import { wordWindowFit } from "./words";

interface Stream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const dim = "\u001b[2m";
const plain = "\u001b[22m";
const clearLine = "\r\u001b[K";

export class AskScreen {
  #progressShown = false;
  #part: "none" | "reasoning" | "answer" = "none";
  #shards: ShardProgress | null = null;

  /** `quiet`: standard output belongs to a JSON value. */
  constructor(
    private readonly out: Stream,
    private readonly progress: Stream,
    private readonly quiet: boolean,
  ) {}

  show(event: AskEvent): void {
    switch (event.type) {
      case "phase":
        if (event.phase === "loading") this.#tell("Loading the model");
        break;
      case "scan":
        this.#tell(`Looking at the files: ${count(event.files)}`);
        break;
      case "plan":
        this.#say(wordWindowFit(event.plan));
        break;
      case "reading":
        this.#tell(readingLine(event, this.#shards));
        break;
      case "shards":
        this.#shards = event.shards;
        this.#tell(shardsLine(event.shards));
        break;
      case "reasoning":
      case "answer":
        this.#write(event.type, event.text);
        break;
      default:
    }
  }

  end(outcome: AskOutcome): void {
    this.#clear();
    if (this.quiet || this.#part === "none") return;
    this.#enter("none");
    const lines = [...citationLines(outcome.citations), ...refusalLines(outcome.refusal)];
    if (lines.length > 0) this.out.write(`\n\n${lines.map(printable).join("\n")}`);
    const closing = printable(closingLine(outcome));
    this.out.write(`\n\n${this.out.isTTY === true ? `${dim}${closing}${plain}` : closing}\n`);
  }

  #write(part: "reasoning" | "answer", text: string): void {
    this.#clear();
    if (this.quiet) return;
    this.#enter(part);
    this.out.write(printable(text));
  }

  #enter(part: "none" | "reasoning" | "answer"): void {
    if (part === this.#part) return;
    const colour = this.out.isTTY === true;
    if (this.#part === "reasoning") this.out.write(`${colour ? plain : ""}${part === "answer" ? "\n\n" : ""}`);
    if (part === "reasoning" && colour) this.out.write(dim);
    this.#part = part;
  }

  /** Not only on a terminal: a whole line of its own. */
  #say(line: string | null): void {
    if (line === null) return;
    this.#clear();
    this.progress.write(`${line}\n`);
  }

  #tell(line: string): void {
    if (this.progress.isTTY !== true) return;
    this.progress.write(`${clearLine}${line}`);
    this.#progressShown = true;
  }

  #clear(): void {
    if (this.#progressShown) this.progress.write(clearLine);
    this.#progressShown = false;
  }
}

function readingLine(
  { position, promptTokens, tokensPerSecond, secondsLeft }: Extract<AskEvent, { type: "reading" }>,
  shards: ShardProgress | null,
): string {
  const percent = Math.floor((100 * position) / Math.max(1, promptTokens));
  const speed = tokensPerSecond > 0 ? ` · ${count(Math.round(tokensPerSecond))} tok/s` : "";
  const time = secondsLeft < 90 ? `${Math.ceil(secondsLeft)} s` : `${Math.ceil(secondsLeft / 60)} min`;
  const tokens = `${count(position)} of ${count(promptTokens)} tokens`;
  const what = shards === null ? "Reading repository" : `Reading shard ${shards.first} of ${shards.total} ·`;
  return `${what} ${percent} % · ${tokens}${speed === "" ? "" : `${speed} · ${time} left`}`;
}

function shardsLine({ total, first, last, asked, found }: ShardProgress): string {
  const which = first === last ? `shard ${first}` : `shards ${first} to ${last}`;
  return `Asking ${which} of ${total} · ${count(found)} of ${count(asked)} had an answer`;
}

const words = { verified: "verified", relocated: "relocated", earlier: "earlier", "not-found": "not found" } as const;

/** A path that only repeats the place of its block is not listed again. */
function citationLines(citations: readonly Citation[]): string[] {
  const blocks = citations.filter(({ kind }) => kind === "block");
  const paths = citations.filter(
    ({ kind, path, namedPath }) =>
      kind === "path" && !blocks.some((block) => block.path === path && block.namedPath === namedPath),
  );
  return [...blocks, ...paths].map((citation) => {
    const { kind, path, startLine, endLine, status, namedPath, candidates, stale } = citation;
    const place = path === "" ? namedPath || "a quote" : `${path}${lineRange(startLine, endLine)}`;
    const notes = [
      ...(status === "relocated" ? [`the answer says ${namedPath}`] : []),
      ...(candidates > 1 ? [`one of ${candidates} places`] : []),
      ...(status === "earlier" ? ["this stood in an earlier copy of the file; it has changed since"] : []),
      ...(stale ? ["changed since it was read"] : []),
    ];
    // Of a path alone only its existence was checked.
    const word = kind === "path" && status === "verified" && startLine === 0 ? "exists" : words[status];
    return `  ${word.padEnd(10)} ${place}${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`;
  });
}

function lineRange(startLine: number, endLine: number): string {
  if (startLine === 0) return "";
  return startLine === endLine ? `:${startLine}` : `:${startLine}-${endLine}`;
}

function refusalLines(refusal: RefusalCheck | null): string[] {
  if (refusal === null) return [];
  if (refusal.places.length === 0) return [`  "${refusal.name}" stands in no text file of the repository.`];
  return refusal.places.map(
    ({ path, line, wasRead }) =>
      `  "${refusal.name}" stands in ${path}:${line}, which ${wasRead ? "was read" : "was not read"}.`,
  );
}

function closingLine({ plan, shards, leftOut, stats, done }: AskOutcome): string {
  const parts: string[] = [];
  if (done === "stopped") parts.push("Stopped");
  if (done === "token-limit" || done === "context-full") parts.push("Cut short: no room for more tokens");
  if (done === "repetition") parts.push("Stopped, because the model repeated itself");
  if (plan !== null) {
    const { readFiles, totalFiles } = plan.summary;
    parts.push(`Read ${count(readFiles)} of ${count(totalFiles)} files`);
  }
  if (shards.length > 0) {
    const found = shards.filter(({ verdict }) => verdict === "found").length;
    const failed = shards.filter(({ verdict }) => verdict === "failed").length;
    parts.push(`Asked ${count(shards.length)} shards, ${count(found)} had an answer`);
    if (failed > 0) parts.push(`${count(failed)} failed`);
    if (leftOut.length > 0) parts.push(`${count(leftOut.length)} lines too long for a shard`);
  }
  if (stats !== null) {
    parts.push(`${count(stats.promptTokens)} tokens, ${count(stats.reusedTokens)} of them from before`);
    if (stats.prefillTokensPerSecond !== undefined) parts.push(`read ${speed(stats.prefillTokensPerSecond)}`);
    if (stats.decodeTokensPerSecond !== undefined) parts.push(`wrote ${speed(stats.decodeTokensPerSecond)}`);
    parts.push(`first token after ${(stats.firstTokenMs / 1000).toFixed(1)} s`, stats.device);
  }
  return parts.join(" · ");
}

function speed(tokensPerSecond: number): string {
  return `${count(Math.round(tokensPerSecond))} tok/s`;
}

function count(number: number): string {
  return number.toLocaleString("en-US");
}
