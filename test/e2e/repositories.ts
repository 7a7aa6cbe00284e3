// Owns: the repositories that the end-to-end tests ask about: two small pinned packages, and one that is larger than the
// model's window. Each is written to a temporary folder; equal on every run.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { at } from "../../scripts/paths.mjs";

export interface Definition {
  readonly name: string;
  readonly path: string;
  readonly line: number;
}

/** Pinned exactly in package.json: their definitions are the right answers. */
const packages = ["cross-spawn", "tmp"];

/** A folder of exactly this name, because a repository's name is part of the prompt. */
export function temporaryFolder(name: string): string {
  const folder = path.join(fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "ringside-"))), name);
  fs.mkdirSync(folder);
  return folder;
}

export function removeTemporaryFolder(folder: string): void {
  fs.rmSync(path.dirname(folder), { recursive: true, force: true });
}

/** The two packages beside one another, as somebody would vendor them. */
export function writePackages(): string {
  const folder = temporaryFolder("packages");
  for (const name of packages) fs.cpSync(at("node_modules", name), path.join(folder, name), { recursive: true });
  return folder;
}

export function linesOf(folder: string, file: string): string[] {
  return fs.readFileSync(path.join(folder, file), "utf8").split(/\r?\n/);
}

/** Functions that stand at the left margin and are defined once, with names that are no everyday words. */
export function definitionsIn(folder: string): Definition[] {
  const files = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".js"));
  const found = files.sort().flatMap((file) =>
    linesOf(folder, file).flatMap((text, index) => {
      const name = /^(?:async )?function (\w{8,})\(/.exec(text)?.[1];
      return name === undefined ? [] : [{ name, path: file, line: index + 1 }];
    }),
  );
  return found.filter(({ name }) => found.filter((other) => other.name === name).length === 1);
}

/** `count` different elements, in an order that the seed decides (mulberry32). */
export function draw<T>(elements: readonly T[], count: number, seed: number): T[] {
  const left = [...elements];
  let state = seed >>> 0;
  const random = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return Array.from({ length: Math.min(count, left.length) }, () =>
    left.splice(Math.floor(random() * left.length), 1),
  ).flat();
}

export interface LargeRepository {
  readonly folder: string;
  /** In a small file that no base plan holds: there are far more files than fit. */
  readonly small: Definition;
  /** In a file that is larger than the whole window, so that it is never read. */
  readonly unread: Definition;
}

const verbs = ["collect", "resolve", "merge", "format", "schedule", "decode", "measure", "replay", "trim", "index"];
const nouns = [
  "Invoice",
  "Channel",
  "Ledger",
  "Shipment",
  "Palette",
  "Beacon",
  "Archive",
  "Quota",
  "Tariff",
  "Courier",
];

/** A module of about 1 KB whose names appear in no other. */
function moduleText(number: number): string {
  const noun = `${nouns[number % nouns.length] ?? ""}${String(number)}`;
  const functions = verbs.slice(0, 4).map(
    (verb, index) => `/** ${verb}s the ${noun} entries that are newer than the given day. */
export function ${verb}${noun}(entries: readonly number[], day: number): number {
  let total = ${String(index + number)};
  for (const entry of entries) {
    if (entry > day) total += entry % ${String(number + 7)};
  }
  return total;
}
`,
  );
  return functions.join("\n");
}

export function writeLargeRepository(): LargeRepository {
  const folder = temporaryFolder("large");
  const write = (file: string, text: string): void => {
    fs.mkdirSync(path.join(folder, path.dirname(file)), { recursive: true });
    fs.writeFileSync(path.join(folder, file), text);
  };
  for (let number = 0; number < 400; number++) {
    write(`src/area${String(number % 20)}/module${String(number)}.ts`, moduleText(number));
  }
  const registry = Array.from({ length: 190 }, (_, index) => moduleText(1000 + index)).join("\n");
  write("src/registry.ts", registry);
  const place = (file: string, name: string): Definition => {
    const index = linesOf(folder, file).findIndex((line) => line.includes(`function ${name}(`));
    return { name, path: file, line: index + 1 };
  };
  return {
    folder,
    small: place("src/area17/module397.ts", "resolveQuota397"),
    unread: place("src/registry.ts", "mergeBeacon1105"),
  };
}
