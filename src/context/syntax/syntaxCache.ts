// Owns: the syntax of each file as it was scanned, so that a file is parsed once for each of its contents. Must never keep a
// file's syntax longer than the scan keeps the file.
import type { ScannedFile } from "../contentCache";
import type { FileSyntax, SyntaxReader } from "./fileSyntax";

export class SyntaxCache {
  readonly #known = new WeakMap<ScannedFile, FileSyntax>();
  readonly #reading = new WeakMap<ScannedFile, Promise<FileSyntax>>();

  constructor(private readonly reader: SyntaxReader) {}

  /** Without waiting; undefined: not read yet. */
  known(file: ScannedFile): FileSyntax | undefined {
    return this.#known.get(file);
  }

  /** `text` is the file's as scanned. Rejects with "cancelled". */
  async of(file: ScannedFile, text: string, signal?: AbortSignal): Promise<FileSyntax> {
    const known = this.#known.get(file);
    if (known !== undefined) return known;
    // Who reads it already may give up; the file is then still to be read for us.
    await this.#reading.get(file)?.catch(() => undefined);
    return this.#known.get(file) ?? this.#read(file, text, signal);
  }

  async #read(file: ScannedFile, text: string, signal: AbortSignal | undefined): Promise<FileSyntax> {
    const reading = this.reader.read(file.path, text, signal);
    this.#reading.set(file, reading);
    try {
      const syntax = await reading;
      this.#known.set(file, syntax);
      return syntax;
    } finally {
      if (this.#reading.get(file) === reading) this.#reading.delete(file);
    }
  }
}
