// Owns: reading all of standard input, and writing results to standard output.
import { failure } from "../protocol/errors";

/** Throws "file-malformed" when the bytes are not UTF-8: a tokenizer's result would silently be that of other text. */
export async function readStandardInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch {
    throw failure("file-malformed", "standard input", "UTF-8", "bytes that are not");
  }
}

/** Resolves when the bytes are handed over, so that the program may end. */
export async function writeOut(text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}
