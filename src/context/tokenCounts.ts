// Owns: files as they go into a prompt, whole or as outlines, and what each costs in one model's tokens, counted once per content.
// Must never estimate what it reports, and never hand out a file that holds a secret.
import type { FileMode } from "../protocol/qa";
import type { ScannedFile } from "./contentCache";
import type { FileFacts } from "./fileFacts";
import type { RepositoryScan } from "./scan";
import { fileCloseTag, fileOpenTag, fileSeparator, outlineBody, segmentBody } from "./segment";

export type CountTokens = (texts: readonly string[], signal?: AbortSignal) => Promise<readonly number[]>;

export type PackedMode = Exclude<FileMode, "dropped">;

export interface CountedFile {
  readonly file: ScannedFile;
  /** As it stands in the prompt. */
  readonly text: string;
  readonly tokens: number;
  readonly mode: PackedMode;
}

type Packed = Omit<CountedFile, "tokens">;

export class TokenCounts {
  readonly #byFile = { full: new WeakMap<ScannedFile, number>(), outline: new WeakMap<ScannedFile, number>() };
  #tagTokens: number | undefined;

  constructor(
    private readonly count: CountTokens,
    readonly facts: FileFacts,
  ) {}

  async texts(texts: readonly string[], signal?: AbortSignal): Promise<readonly number[]> {
    return texts.length === 0 ? [] : this.count(texts, signal);
  }

  /** Files whose text went away since the scan, or holds a secret, are missing from the result; the order is kept. */
  async files(scan: RepositoryScan, files: readonly ScannedFile[], signal?: AbortSignal): Promise<CountedFile[]> {
    const texts = await this.#texts(scan, files, signal);
    return this.#counted(
      texts.map(({ file, text }) => ({ file, text, mode: "full" })),
      signal,
    );
  }

  /** Those that have no outline are missing from the result too. */
  async outlines(scan: RepositoryScan, files: readonly ScannedFile[], signal?: AbortSignal): Promise<CountedFile[]> {
    const texts = await this.#texts(scan, files, signal);
    const outlined = await Promise.all(
      texts.map(async ({ file, text }): Promise<Packed> => {
        const outline = await this.facts.outline(file, text, signal);
        return { file, text: outline === "" ? "" : outlineBody(outline), mode: "outline" };
      }),
    );
    return this.#counted(
      outlined.filter(({ text }) => text !== ""),
      signal,
    );
  }

  /** Of files as they once were. */
  async copies(
    files: readonly { readonly path: string; readonly text: string }[],
    signal?: AbortSignal,
  ): Promise<readonly number[]> {
    const tagTokens = await this.#tags(signal);
    const counts = await this.texts(
      files.map(({ path, text }) => segmentBody(path, text)),
      signal,
    );
    return counts.map((tokens) => tokens + tagTokens);
  }

  /** 0 when the file was never counted in that form. */
  known(file: ScannedFile, mode: PackedMode = "full"): number {
    return this.#byFile[mode].get(file) ?? 0;
  }

  /** Counted as plain text: exact for models without these added tokens, a few tokens too many for those that have them. */
  async #tags(signal: AbortSignal | undefined): Promise<number> {
    this.#tagTokens ??= sum(await this.count([fileOpenTag, fileCloseTag, fileSeparator], signal));
    return this.#tagTokens;
  }

  async #texts(
    scan: RepositoryScan,
    files: readonly ScannedFile[],
    signal: AbortSignal | undefined,
  ): Promise<{ file: ScannedFile; text: string }[]> {
    const read = await Promise.all(
      files.map(async (file) => {
        const text = await scan.text(file);
        const isShown = text !== undefined && !(await this.facts.findSecret(file, text, signal));
        return { file, text: isShown ? text : undefined };
      }),
    );
    return read.filter((item): item is { file: ScannedFile; text: string } => item.text !== undefined);
  }

  async #counted(items: readonly Packed[], signal: AbortSignal | undefined): Promise<CountedFile[]> {
    const tagTokens = await this.#tags(signal);
    const uncounted = items.filter(({ file, mode }) => !this.#byFile[mode].has(file));
    const counts = await this.texts(
      uncounted.map(({ file, text }) => segmentBody(file.path, text)),
      signal,
    );
    for (const [index, { file, mode }] of uncounted.entries()) {
      this.#byFile[mode].set(file, (counts[index] ?? 0) + tagTokens);
    }
    return items.map((item) => ({ ...item, tokens: this.known(item.file, item.mode) }));
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
