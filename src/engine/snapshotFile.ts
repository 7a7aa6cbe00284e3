// Owns: the bytes of a snapshot's file (docs/SNAPSHOTS.md): writing them and reading them back.
// Must never trust a length of the file: each is worked out from the loaded model and compared, and nothing is allocated before.
import { createHash } from "node:crypto";
import { failure } from "../protocol/errors";
import { bytesOf, chunkTokens } from "./snapshotKeys";

export const snapshotFormat = 1;
export const pageTokens = 256;
export const headerBytes = 640;
const magic = "RINGSNAP";
const hashBytes = 32;
const checksumOffset = headerBytes - hashBytes;
/** Of a repository's name in a header. */
export const labelBytes = 256;

/** What a file must fit: one model, loaded in one way, on one build. */
export interface SnapshotModel {
  /** SHA-256 of everything that a state's bytes depend on, as hexadecimal digits. */
  readonly identity: string;
  readonly stateBytes: number;
  /** Of 256 positions. */
  readonly pageBytes: number;
  readonly contextTokens: number;
}

/** A state, and what was read since the state that it follows: the file of the former holds the latter's place by its key. */
export interface SnapshotName {
  readonly key: string;
  /** "": nothing stands before. */
  readonly parent: string;
  readonly fromTokens: number;
  readonly toTokens: number;
  /** For people: the repository. */
  readonly label: string;
}

export interface SnapshotContent {
  /** From `fromTokens` to `toTokens`. */
  readonly tokens: Int32Array;
  readonly state: Uint8Array;
  /** The pages in which these tokens lie, the first and the last perhaps only in part. */
  readonly pages: Uint8Array;
}

export const sectionNames = ["tokens", "state", "pages"] as const;
export type SectionName = (typeof sectionNames)[number];
export interface Section {
  readonly offset: number;
  readonly bytes: number;
  readonly sha256: string;
}
export interface SnapshotHeader extends SnapshotName {
  readonly identity: string;
  readonly stateBytes: number;
  readonly pageBytes: number;
  readonly sections: Readonly<Record<SectionName, Section>>;
  readonly fileBytes: number;
}

export function firstPage(fromTokens: number): number {
  return Math.floor(fromTokens / pageTokens);
}

export function pagesOf(fromTokens: number, toTokens: number): number {
  return Math.ceil(toTokens / pageTokens) - firstPage(fromTokens);
}

type Lengths = Readonly<Record<SectionName, number>>;

function lengthsOf(
  { stateBytes, pageBytes }: Pick<SnapshotModel, "stateBytes" | "pageBytes">,
  from: number,
  to: number,
): Lengths {
  return { tokens: (to - from) * 4, state: stateBytes, pages: pagesOf(from, to) * pageBytes };
}

/** The length of a file with these tokens. */
export function fileBytesOf(model: SnapshotModel, fromTokens: number, toTokens: number): number {
  const { tokens, state, pages } = lengthsOf(model, fromTokens, toTokens);
  return headerBytes + tokens + state + pages;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The file's pieces in order. Throws "internal" when a part has not the length that the model gives it. */
export function encodeSnapshot(
  model: SnapshotModel,
  name: SnapshotName,
  content: SnapshotContent,
  hashes: Readonly<Record<SectionName, string>>,
): readonly Uint8Array[] {
  const parts = { ...content, tokens: bytesOf(content.tokens) };
  const lengths = lengthsOf(model, name.fromTokens, name.toTokens);
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, "latin1");
  header.writeUInt32LE(snapshotFormat, 8);
  header.writeUInt32LE(headerBytes, 12);
  header.write(model.identity, 16, "hex");
  header.write(name.key, 48, "hex");
  header.write(name.parent, 80, "hex");
  header.writeBigUInt64LE(BigInt(name.fromTokens), 112);
  header.writeBigUInt64LE(BigInt(name.toTokens), 120);
  header.writeUInt32LE(chunkTokens, 128);
  header.writeUInt32LE(pageTokens, 132);
  header.writeBigUInt64LE(BigInt(model.stateBytes), 136);
  header.writeBigUInt64LE(BigInt(model.pageBytes), 144);
  header.writeUInt32LE(sectionNames.length, 152);
  let offset = headerBytes;
  for (const [index, section] of sectionNames.entries()) {
    if (parts[section].byteLength !== lengths[section]) {
      throw failure("internal", `snapshot ${section}`, String(lengths[section]), String(parts[section].byteLength));
    }
    const at = 160 + index * 56;
    header.writeUInt32LE(index + 1, at);
    header.writeBigUInt64LE(BigInt(offset), at + 8);
    header.writeBigUInt64LE(BigInt(lengths[section]), at + 16);
    header.write(hashes[section], at + 24, "hex");
    offset += lengths[section];
  }
  header.write(shortened(name.label), 328, labelBytes, "utf8");
  header.write(sha256(header.subarray(0, checksumOffset)), checksumOffset, "hex");
  return [header, parts.tokens, parts.state, parts.pages];
}

/** At most `labelBytes` of UTF-8, cut between characters, without the zero that ends it. */
export function shortened(label: string): string {
  let cut = "";
  for (const character of label.replaceAll("\0", "")) {
    if (Buffer.byteLength(cut + character) > labelBytes) break;
    cut += character;
  }
  return cut;
}

function malformed(field: string, expected: string | number, actual: string | number): never {
  throw failure("file-malformed", `snapshot ${field}`, String(expected), String(actual));
}

/**
 * What the header says of itself; whether it fits a model is for {@link checkModel}. `fileBytes`: the file's length on the disk.
 * Throws "file-malformed" for anything that this format does not allow, to the last bit.
 */
export function parseHeader(bytes: Uint8Array, fileBytes: number): SnapshotHeader {
  if (bytes.byteLength !== headerBytes) malformed("header", headerBytes, bytes.byteLength);
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const field = (name: string, expected: number, actual: number): void => {
    if (actual !== expected) malformed(name, expected, actual);
  };
  if (header.toString("latin1", 0, 8) !== magic) malformed("magic", magic, "other bytes");
  field("format", snapshotFormat, header.readUInt32LE(8));
  field("header length", headerBytes, header.readUInt32LE(12));
  const checksum = sha256(header.subarray(0, checksumOffset));
  if (header.toString("hex", checksumOffset) !== checksum) malformed("header checksum", checksum, "another");
  // The rest is what encodeSnapshot() wrote, or was made to look like it: both are checked alike.
  const number = (offset: number): number => {
    const value = header.readBigUInt64LE(offset);
    return value <= BigInt(Number.MAX_SAFE_INTEGER)
      ? Number(value)
      : malformed("number", "at most 2^53", String(value));
  };
  const [fromTokens, toTokens, stateBytes, pageBytes] = [number(112), number(120), number(136), number(144)];
  field("chunk", chunkTokens, header.readUInt32LE(128));
  field("page", pageTokens, header.readUInt32LE(132));
  field("sections", sectionNames.length, header.readUInt32LE(152));
  if (toTokens <= fromTokens || fromTokens % chunkTokens !== 0 || toTokens % chunkTokens !== 0 || toTokens > 2 ** 31) {
    malformed("positions", "ascending multiples of 64", `${String(fromTokens)}, ${String(toTokens)}`);
  }
  const lengths = lengthsOf({ stateBytes, pageBytes }, fromTokens, toTokens);
  let offset = headerBytes;
  const sections = Object.fromEntries(
    sectionNames.map((name, index) => {
      const at = 160 + index * 56;
      field(`${name} kind`, index + 1, header.readUInt32LE(at));
      field(`${name} offset`, offset, number(at + 8));
      field(`${name} length`, lengths[name], number(at + 16));
      const section: Section = { offset, bytes: lengths[name], sha256: header.toString("hex", at + 24, at + 56) };
      offset += lengths[name];
      return [name, section];
    }),
  ) as Record<SectionName, Section>;
  field("file", offset, fileBytes);
  const parent = header.toString("hex", 80, 112);
  const hasParent = /[^0]/.test(parent);
  if (hasParent !== fromTokens > 0) malformed("parent", fromTokens > 0 ? "a key" : "none", parent);
  return {
    identity: header.toString("hex", 16, 48),
    key: header.toString("hex", 48, 80),
    parent: hasParent ? parent : "",
    fromTokens,
    toTokens,
    stateBytes,
    pageBytes,
    sections,
    label: header.toString("utf8", 328, 328 + labelBytes).replace(/\0+$/, ""),
    fileBytes,
  };
}

/** Throws "file-malformed" unless the file is that state of that model. */
export function checkModel(header: SnapshotHeader, model: SnapshotModel, key: string): void {
  if (header.key !== key) malformed("key", key, header.key);
  if (header.identity !== model.identity) malformed("model", model.identity, header.identity);
  if (header.stateBytes !== model.stateBytes) malformed("state", model.stateBytes, header.stateBytes);
  if (header.pageBytes !== model.pageBytes) malformed("page", model.pageBytes, header.pageBytes);
  if (header.toTokens > model.contextTokens) malformed("position", model.contextTokens, header.toTokens);
}

/** Throws "file-malformed" when a section is not what the header says. */
export function checkSection(name: SectionName, section: Section, bytes: Uint8Array): void {
  if (bytes.byteLength !== section.bytes) malformed(name, section.bytes, bytes.byteLength);
  const found = sha256(bytes);
  if (found !== section.sha256) malformed(`${name} checksum`, section.sha256, found);
}
