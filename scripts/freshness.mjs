// Owns: telling whether an output is newer than everything it was made from. By content, not by time: a checkout or a
// branch switch changes times without changing files. Must never build anything.
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { at, root } from "./paths.mjs";

/** Files up to this size are compared by content, larger ones (weights) by size and time. */
const contentLimitBytes = 4 << 20;

/**
 * All files under the given files and folders of the checkout, sorted; what is missing is left out.
 * @param {readonly string[]} inputs
 * @param {(file: string) => boolean} [accept]
 * @returns {string[]}
 */
export function listFiles(inputs, accept = () => true) {
  const files = [];
  const visit = (file) => {
    const stat = fs.statSync(file, { throwIfNoEntry: false });
    if (stat?.isDirectory()) for (const name of fs.readdirSync(file)) visit(path.join(file, name));
    else if (stat?.isFile() && accept(path.relative(root, file))) files.push(path.relative(root, file));
  };
  for (const input of inputs) visit(at(input));
  return files.sort();
}

/**
 * @param {readonly string[]} inputs
 * @param {(file: string) => boolean} [accept]
 */
export function fingerprint(inputs, accept) {
  const hash = createHash("sha256");
  for (const file of listFiles(inputs, accept)) {
    const stat = fs.statSync(at(file));
    hash.update(`${file}\0${stat.size}\0`);
    hash.update(stat.size > contentLimitBytes ? String(stat.mtimeMs) : fs.readFileSync(at(file)));
  }
  return hash.digest("hex");
}

const stampOf = (name) => at("build", "stamps", name);

/** Makes the next build of this name happen, whatever its inputs. */
export function forget(name) {
  fs.rmSync(stampOf(name), { force: true });
}

/**
 * Calls `build` unless the outputs exist and were made from the same inputs (and the same `key`, such as options).
 * Returns "up to date" when there was nothing to do.
 * @param {{ name: string, inputs: readonly string[], accept?: (file: string) => boolean, key?: string, outputs: readonly string[] }} made
 * @param {() => Promise<unknown>} build
 */
export async function whenStale({ name, inputs, accept, key = "", outputs }, build) {
  const stampFile = stampOf(name);
  const stamp = `${fingerprint(inputs, accept)} ${key}`;
  const isFresh = fs.existsSync(stampFile) && fs.readFileSync(stampFile, "utf8") === stamp;
  if (isFresh && outputs.every((file) => fs.existsSync(at(file)))) return "up to date";
  forget(name);
  const note = await build();
  fs.mkdirSync(path.dirname(stampFile), { recursive: true });
  fs.writeFileSync(stampFile, stamp);
  return note;
}
