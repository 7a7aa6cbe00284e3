// Owns: the name of everything that a state's bytes depend on besides the tokens (docs/SNAPSHOTS.md, "Identity").
import { createHash } from "node:crypto";
import { open, readdir, readFile } from "node:fs/promises";
import * as path from "node:path";
import type { LoadRequest, ModelInfo } from "../protocol/engine";
import { snapshotFormat } from "./snapshotFile";

const wholeFiles = ["config.json", "tokenizer.json", "model.safetensors.index.json"];
/** Of a weight file: the list of its tensors begins there. */
const startBytes = 64 * 1024;

/** SHA-256 as hexadecimal digits. Rejects when a file cannot be read. */
export async function identityOf(request: LoadRequest, info: ModelInfo, addonPath: string): Promise<string> {
  const hash = createHash("sha256");
  const add = (value: string | Uint8Array): void => {
    const bytes = typeof value === "string" ? Buffer.from(value) : value;
    hash.update(`${String(bytes.byteLength)} `).update(bytes);
  };
  add(String(snapshotFormat));
  for (const name of (await readdir(request.folder)).sort()) {
    const file = path.join(request.folder, name);
    if (wholeFiles.includes(name)) {
      add(name);
      add(await readFile(file));
    } else if (name.endsWith(".safetensors")) {
      add(name);
      for (const part of await stampOf(file)) add(part);
    }
  }
  add(await readFile(addonPath));
  const { backend, device, isa } = info;
  // Of the processor the instruction set says all; its name also tells the threads, on which nothing depends.
  for (const part of [backend, backend === "cpu" ? "" : device, isa, request.kvFormat, request.slopeForm]) add(part);
  return hash.digest("hex");
}

async function stampOf(file: string): Promise<readonly (string | Uint8Array)[]> {
  const handle = await open(file);
  try {
    const { size, mtimeNs, ctimeNs } = await handle.stat({ bigint: true });
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(startBytes), 0, startBytes, 0);
    return [`${String(size)} ${String(mtimeNs)} ${String(ctimeNs)}`, buffer.subarray(0, bytesRead)];
  } finally {
    await handle.close();
  }
}
