// Owns: what each file costs in one model's tokens, counted once per content. Must never estimate what it reports.
import type { ScannedFile } from "./contentCache";
import type { RepositoryScan } from "./scan";
import { fileCloseTag, fileOpenTag, fileSeparator, segmentBody } from "./segment";

export type CountTokens = (texts: readonly string[], signal?: AbortSignal) => Promise<readonly number[]>;

export interface CountedFile {
  readonly file: ScannedFile;
  readonly text: string;
  readonly tokens: number;
}

export class TokenCounts {
  readonly #byFile = new WeakMap<ScannedFile, number>();
  #tagTokens: number | undefined;

  constructor(private readonly count: CountTokens) {}

  async texts(texts: readonly string[], signal?: AbortSignal): Promise<readonly number[]> {
    return texts.length === 0 ? [] : this.count(texts, signal);
  }

  /** Files whose text went away since the scan are missing from the result; the order is kept. */
  async files(scan: RepositoryScan, files: readonly ScannedFile[], signal?: AbortSignal): Promise<CountedFile[]> {
    // Counted as plain text: exact for models without these added tokens, a few tokens too many for those that have them.
    this.#tagTokens ??= sum(await this.count([fileOpenTag, fileCloseTag, fileSeparator], signal));
    const withText = await Promise.all(files.map(async (file) => ({ file, text: await scan.text(file) })));
    const present = withText.filter((item): item is { file: ScannedFile; text: string } => item.text !== undefined);
    const uncounted = present.filter(({ file }) => !this.#byFile.has(file));
    const counts = await this.texts(
      uncounted.map(({ file, text }) => segmentBody(file.path, text)),
      signal,
    );
    for (const [index, { file }] of uncounted.entries()) this.#byFile.set(file, (counts[index] ?? 0) + this.#tagTokens);
    return present.map(({ file, text }) => ({ file, text, tokens: this.known(file) }));
  }

  /** 0 when the file was never counted. */
  known(file: ScannedFile): number {
    return this.#byFile.get(file) ?? 0;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
