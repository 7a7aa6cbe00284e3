// Owns: the check that a built addon runs on the glibc floor with any libstdc++: exits 1 and names each symbol that it would miss
// there. Must never change the file.
//
//   node scripts/symbols.mjs <file.node>
import { compareNumbers, parseVersion, readElf } from "./elf.mjs";
import { glibcFloor } from "./native-link.mjs";
import { Explained, isMain, main, say } from "./process.mjs";

/** What the floor's systems offer (Debian 10 has GCC 8). Families that are not here are not offered: libstdc++ is linked in. */
const offered = { GLIBC: glibcFloor, GCC: [7, 0, 0] };

/** Part of every system that VS Code runs on. */
const offeredLibraries = new Set([
  "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1", "ld-linux-x86-64.so.2",
]); // prettier-ignore

function isOffered(versionName) {
  const version = parseVersion(versionName);
  const limit = version === undefined ? undefined : offered[version.family];
  return limit !== undefined && compareNumbers(version.numbers, limit) <= 0;
}

/** One sentence for each thing that the floor lacks. */
export function problemsOf(file) {
  const { symbols, libraries, neededVersions } = readElf(file);
  const missing = symbols.filter(({ isDefined }) => !isDefined);
  const problems = missing
    .filter(({ version }) => version !== undefined && !isOffered(version))
    .map(({ name, version }) => `${name} needs ${version}`);
  // Without a version a symbol was not found while linking: either Node offers it or nobody does.
  const isOfNode = (name) => /^(napi|node_api)_/.test(name);
  for (const { name, version, isWeak } of missing) {
    if (version === undefined && !isWeak && !isOfNode(name)) problems.push(`${name} is defined nowhere on the floor`);
  }
  const carried = new Set(missing.map(({ version }) => version));
  for (const version of neededVersions) {
    if (!carried.has(version) && !isOffered(version)) problems.push(`the loader needs ${version}`);
  }
  for (const library of libraries) {
    if (!offeredLibraries.has(library)) problems.push(`it loads ${library}`);
  }
  return problems;
}

/** The newest version that the file needs, for the report. */
function newestNeeded(file) {
  const versions = readElf(file)
    .symbols.filter(({ isDefined, version }) => !isDefined && version?.startsWith("GLIBC_"))
    .map(({ version }) => parseVersion(version)?.numbers ?? []);
  return versions.sort(compareNumbers).at(-1)?.join(".") ?? "none";
}

if (isMain(import.meta)) {
  void main(() => {
    const file = process.argv[2];
    if (file === undefined) throw new Explained("usage: node scripts/symbols.mjs <file.node>");
    const problems = problemsOf(file);
    const floor = glibcFloor.join(".");
    if (problems.length > 0) {
      throw new Explained(`${file} does not run on glibc ${floor}:\n${problems.map((line) => `  ${line}`).join("\n")}`);
    }
    say(`${file} runs on glibc ${floor}; the newest version that it needs is ${newestNeeded(file)}.`);
  });
}
