// Owns: reading the dynamic symbols of a 64-bit little-endian ELF file: what it defines, what it needs, in which versions.
// Must never run another program for it: the check has to work where no binutils are.
import fs from "node:fs";
import { Explained } from "./process.mjs";

const sectionTypes = {
  dynamic: 6,
  dynamicSymbols: 11,
  versionsDefined: 0x6ffffffd,
  versionsNeeded: 0x6ffffffe,
  versions: 0x6fffffff,
};
const symbolTypes = ["none", "object", "function", "section", "file", "common", "tls"];
const indirectFunction = 10;
const neededTag = 1n;

function sectionsOf(file, bytes) {
  const isElf64 = bytes.length >= 64 && bytes.readUInt32BE(0) === 0x7f454c46 && bytes[4] === 2 && bytes[5] === 1;
  if (!isElf64) throw new Explained(`${file} is not a 64-bit little-endian ELF file.`);
  const start = Number(bytes.readBigUInt64LE(40));
  const [entryBytes, count] = [bytes.readUInt16LE(58), bytes.readUInt16LE(60)];
  const raw = Array.from({ length: count }, (_, index) => {
    const at = start + index * entryBytes;
    return {
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      length: Number(bytes.readBigUInt64LE(at + 32)),
      link: bytes.readUInt32LE(at + 40),
      count: bytes.readUInt32LE(at + 44),
    };
  });
  return (type) => {
    const section = raw.find((each) => each.type === type);
    if (section === undefined) return undefined;
    const strings = raw[section.link]?.offset ?? 0;
    const text = (at) => bytes.toString("utf8", strings + at, bytes.indexOf(0, strings + at));
    return { ...section, data: bytes.subarray(section.offset, section.offset + section.length), text };
  };
}

/** Version index → name, of the versions that the file defines and of those that it needs from other files. */
function versionNames(section) {
  const names = new Map();
  const defined = section(sectionTypes.versionsDefined);
  for (let index = 0, at = 0; index < (defined?.count ?? 0); index++) {
    const first = at + defined.data.readUInt32LE(at + 12);
    names.set(defined.data.readUInt16LE(at + 4), defined.text(defined.data.readUInt32LE(first)));
    at += defined.data.readUInt32LE(at + 16);
  }
  const needed = section(sectionTypes.versionsNeeded);
  for (let index = 0, at = 0; index < (needed?.count ?? 0); index++) {
    let part = at + needed.data.readUInt32LE(at + 8);
    for (let left = needed.data.readUInt16LE(at + 2); left > 0; left--) {
      names.set(needed.data.readUInt16LE(part + 6), needed.text(needed.data.readUInt32LE(part + 8)));
      part += needed.data.readUInt32LE(part + 12);
    }
    at += needed.data.readUInt32LE(at + 12);
  }
  return names;
}

/**
 * The file's dynamic symbols. `version` is undefined for a symbol without one; `neededVersions` are all versions that the loader
 * looks for, those that no symbol carries included; `libraries` are the files that it loads first.
 *
 * @typedef {{ name: string, type: string, isWeak: boolean, isDefined: boolean, bytes: number, version: string | undefined }} ElfSymbol
 * @param {string} file
 * @returns {{ symbols: ElfSymbol[], libraries: string[], neededVersions: string[] }}
 */
export function readElf(file) {
  const section = sectionsOf(file, fs.readFileSync(file));
  const table = section(sectionTypes.dynamicSymbols);
  if (table === undefined) throw new Explained(`${file} has no dynamic symbols.`);
  const versions = section(sectionTypes.versions);
  const names = versionNames(section);
  const symbols = [];
  for (let index = 1; index < table.length / 24; index++) {
    const at = index * 24;
    const info = table.data[at + 4];
    const versionIndex = (versions?.data.readUInt16LE(index * 2) ?? 1) & 0x7fff;
    const type = info & 15;
    symbols.push({
      name: table.text(table.data.readUInt32LE(at)),
      type: type === indirectFunction ? "function" : (symbolTypes[type] ?? "none"),
      isWeak: info >> 4 === 2,
      isDefined: table.data.readUInt16LE(at + 6) !== 0,
      bytes: Number(table.data.readBigUInt64LE(at + 16)),
      // 0 and 1 are "local" and "global, without a version".
      version: versionIndex > 1 ? names.get(versionIndex) : undefined,
    });
  }
  const dynamic = section(sectionTypes.dynamic);
  const libraries = [];
  for (let at = 0; at < (dynamic?.length ?? 0); at += 16) {
    if (dynamic.data.readBigInt64LE(at) === neededTag)
      libraries.push(dynamic.text(Number(dynamic.data.readBigUInt64LE(at + 8))));
  }
  const needed = section(sectionTypes.versionsNeeded) === undefined ? [] : [...names.values()];
  return { symbols, libraries, neededVersions: needed };
}

/** "GLIBC_2.17" → { family: "GLIBC", numbers: [2, 17] }; undefined for names that are no numbered version, such as GLIBC_PRIVATE. */
export function parseVersion(name) {
  const match = /^(\w+?)_(\d+(?:\.\d+)*)$/.exec(name);
  return match === null ? undefined : { family: match[1], numbers: match[2].split(".").map(Number) };
}

export function compareNumbers(a, b) {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
