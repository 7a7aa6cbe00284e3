// Owns: the cut of a repository into shards: parts that each fit one prompt and together hold every line once. Depends on paths
// and sizes alone, and an edit only moves what shares a shard with the edited file: the state of every other shard stays of use.
// Must never leave a line out without saying so.
import type { ScannedFile } from "./contentCache";
import { Pace } from "./pace";
import { fileClass } from "./rank";
import { comparePaths } from "./repoReader";
import { fileCloseTag, fileOpenTag, fileSeparator, segmentBody } from "./segment";
import type { RepositoryScan } from "./scan";
import type { CountedFile, TokenCounts } from "./tokenCounts";

/** A file of a shard, or as many of its lines as fit one. */
export interface ShardFile {
  readonly file: ScannedFile;
  /** As the prompt names it: a part of a file tells its lines. */
  readonly path: string;
  readonly text: string;
  /** The text of the whole file. */
  readonly whole: string;
  /** The tags and the separator included. */
  readonly tokens: number;
  /** 1-based, inclusive. */
  readonly startLine: number;
  readonly endLine: number;
}

export interface Shard {
  readonly files: readonly ShardFile[];
  readonly tokens: number;
}

export interface ShardRequest {
  readonly scan: RepositoryScan;
  readonly counts: TokenCounts;
  readonly files: readonly ScannedFile[];
  /** Room for the files of one shard. */
  readonly shardTokens: number;
}

export interface ShardCut {
  readonly shards: readonly Shard[];
  /** Single lines that no shard has room for. */
  readonly leftOut: readonly { readonly file: ScannedFile; readonly line: number; readonly tokens: number }[];
}

const countedAtOnce = 64;
/** A cut falls into the middle half, or one side would be too small to be worth a shard. */
const middle = [1 / 4, 3 / 4] as const;

/** Files that went away since the scan are in no shard. */
export async function cutShards(request: ShardRequest, signal?: AbortSignal): Promise<ShardCut> {
  const { scan, counts, shardTokens } = request;
  const ordered = [...request.files].sort((a, b) => fileClass(a) - fileClass(b) || comparePaths(a.path, b.path));
  const counted: CountedFile[] = [];
  for (let start = 0; start < ordered.length; start += countedAtOnce) {
    counted.push(...(await counts.files(scan, ordered.slice(start, start + countedAtOnce), signal)));
  }
  const cutter = new Cutter(shardTokens, counts, signal);
  await cutter.cutFiles(counted);
  return { shards: cutter.shards, leftOut: cutter.leftOut };
}

class Cutter {
  readonly shards: Shard[] = [];
  readonly leftOut: { file: ScannedFile; line: number; tokens: number }[] = [];
  readonly #pace: Pace;

  constructor(
    private readonly limitTokens: number,
    private readonly counts: TokenCounts,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#pace = new Pace(signal);
  }

  /**
   * What fits is a shard; what does not is cut in two at a file that its path alone chooses among those of the middle half. Were a
   * shard filled up to its limit instead, one more line in its first file would move the ends of all shards after it.
   */
  async cutFiles(files: readonly CountedFile[]): Promise<void> {
    await this.#pace.breathe();
    const tokens = files.reduce((total, file) => total + file.tokens, 0);
    const [only] = files;
    if (only === undefined) return;
    if (tokens <= this.limitTokens) {
      this.shards.push({ files: files.map(wholeFile), tokens });
    } else if (files.length === 1) {
      const lines = only.text.split("\n");
      await this.#cutLines(only, lines, 0, lines.length);
    } else {
      const at = bestCut(0, files.length, (index) => hash((files[index] as CountedFile).file.path));
      await this.cutFiles(files.slice(0, at));
      await this.cutFiles(files.slice(at));
    }
  }

  /** A part of a file is a shard by itself. It begins with a line at the left margin after a blank one, where the middle has one. */
  async #cutLines(counted: CountedFile, lines: readonly string[], from: number, to: number): Promise<void> {
    await this.#pace.breathe();
    const { file, text: whole } = counted;
    const [startLine, endLine] = [from + 1, to];
    const path = `${file.path}:${String(startLine)}-${String(endLine)}`;
    const text = lines.slice(from, to).join("\n");
    const inPrompt = fileOpenTag + segmentBody(path, text) + fileCloseTag + fileSeparator;
    const [tokens = 0] = await this.counts.texts([inPrompt], this.signal);
    if (tokens <= this.limitTokens) {
      this.shards.push({ files: [{ file, path, text, whole, tokens, startLine, endLine }], tokens });
    } else if (to - from === 1) {
      this.leftOut.push({ file, line: startLine, tokens });
    } else {
      const at = bestCut(from, to, (index) => {
        const line = lines[index] ?? "";
        const begins = line !== "" && line.trimStart() === line && (lines[index - 1] ?? "").trim() === "";
        return hash(line) + (begins ? 2 ** 32 : 0);
      });
      await this.#cutLines(counted, lines, from, at);
      await this.#cutLines(counted, lines, at, to);
    }
  }
}

function wholeFile({ file, text, tokens }: CountedFile): ShardFile {
  return { file, path: file.path, text, whole: text, tokens, startLine: 1, endLine: text.split("\n").length };
}

/** The index of the best score in the middle half of from..to, never `from` itself: both sides hold something. */
function bestCut(from: number, to: number, score: (index: number) => number): number {
  const items = to - from;
  const first = from + Math.max(1, Math.ceil(items * middle[0]));
  const last = from + Math.min(items - 1, Math.floor(items * middle[1]));
  let best = first;
  let bestScore = -1;
  for (let index = first; index <= last; index++) {
    const value = score(index);
    if (value <= bestScore) continue;
    best = index;
    bestScore = value;
  }
  return best;
}

/** FNV-1a with a final mix: evenly spread and the same everywhere, which is all that a choice of cuts needs. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}
