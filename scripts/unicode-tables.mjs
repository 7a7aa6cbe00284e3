// Owns: native/model/unicode_tables.cc, the classes of code points that the tokenizer's split regex asks for. Run it by hand
// after a change here; the result is committed. Must never depend on more of the machine than Node's own Unicode data.
import fs from "node:fs";
import { at } from "./paths.mjs";
import { Explained, isMain, main, say } from "./process.mjs";

// The tables are those of Unicode 16.0, which the Hugging Face tokenizers library (0.23, with Oniguruma) uses. Node 20.20 knows
// 17.0, so the letters and numbers that are new in 17.0 are taken out: for 16.0 they are unassigned, hence neither.
const tableVersion = "16.0";
const nodeVersions = ["16.0", "17.0"];
const newIn17 = [
  [0x88f, 0x88f], [0xc5c, 0xc5c], [0xcdc, 0xcdc], [0xa7ce, 0xa7cf], [0xa7d2, 0xa7d2], [0xa7d4, 0xa7d4], [0xa7f1, 0xa7f1],
  [0x10940, 0x10959], [0x10ec5, 0x10ec7], [0x11db0, 0x11ddb], [0x11de0, 0x11de9], [0x16ea0, 0x16eb8], [0x16ebb, 0x16ed3],
  [0x16ff2, 0x16ff6], [0x187f8, 0x187ff], [0x18d09, 0x18d1e], [0x18d80, 0x18df2], [0x1e6c0, 0x1e6de], [0x1e6e0, 0x1e6e2],
  [0x1e6e4, 0x1e6e5], [0x1e6e7, 0x1e6ed], [0x1e6f0, 0x1e6f4], [0x1e6fe, 0x1e6ff], [0x2b73a, 0x2b73f], [0x2cea2, 0x2cead],
  [0x323b0, 0x33479],
]; // prettier-ignore

const isNewIn17 = (codePoint) => newIn17.some(([first, last]) => first <= codePoint && codePoint <= last);

// \s of Oniguruma is the property White_Space. JavaScript's own \s also holds U+FEFF and lacks U+0085.
const classes = [
  ["kLetter", /^\p{L}$/u],
  ["kNumber", /^\p{N}$/u],
  ["kSpace", /^\p{White_Space}$/u],
];

function classOf(codePoint) {
  const isSurrogate = codePoint >= 0xd800 && codePoint <= 0xdfff;
  if (isSurrogate || isNewIn17(codePoint)) return undefined;
  const character = String.fromCodePoint(codePoint);
  return classes.find(([, pattern]) => pattern.test(character))?.[0];
}

function rangesOfClasses() {
  const ranges = [];
  for (let codePoint = 0; codePoint <= 0x10ffff; codePoint++) {
    const name = classOf(codePoint);
    const open = ranges.at(-1);
    if (name === undefined) continue;
    if (open?.name === name && open.last === codePoint - 1) open.last = codePoint;
    else ranges.push({ first: codePoint, last: codePoint, name });
  }
  return ranges;
}

const hex = (value) => `0x${value.toString(16)}`;

function fileText(ranges) {
  const entries = ranges.map(({ first, last, name }) => `{${hex(first)}, ${hex(last)}, ${name}},`);
  const lines = [""];
  for (const entry of entries) {
    const longer = lines.at(-1) === "" ? `    ${entry}` : `${lines.at(-1)} ${entry}`;
    if (longer.length <= 120) lines[lines.length - 1] = longer;
    else lines.push(`    ${entry}`);
  }
  return `// Owns: the letters, numbers and spaces of Unicode ${tableVersion}, ascending. Written by scripts/unicode-tables.mjs; do not edit.
#include "unicode.h"

namespace ringside {
namespace {
constexpr CharClass kLetter = CharClass::kLetter;
constexpr CharClass kNumber = CharClass::kNumber;
constexpr CharClass kSpace = CharClass::kSpace;

// clang-format off
constexpr ClassRange kRanges[] = {
${lines.join("\n")}
};
// clang-format on
}  // namespace

std::span<const ClassRange> class_ranges() { return kRanges; }

}  // namespace ringside
`;
}

if (isMain(import.meta)) {
  void main(() => {
    const version = process.versions.unicode;
    if (!nodeVersions.includes(version)) {
      throw new Explained(`The tables need a Node with Unicode ${nodeVersions.join(" or ")}; this one has ${version}.`);
    }
    const ranges = rangesOfClasses();
    fs.writeFileSync(at("native", "model", "unicode_tables.cc"), fileText(ranges));
    say(`${ranges.length} ranges of Unicode ${tableVersion}`);
  });
}
