// Owns: the libraries that the Linux addon is linked against so that it runs on an old glibc: libc, libm and their kin with the
// right names and symbol versions, nothing newer than the floor, and no code. The machine's own glibc says which versions there
// are; it keeps all old ones. Must never be loaded at run time, and must never need the network.
//
//   node scripts/native-link.mjs <C++ compiler> <folder>
import fs from "node:fs";
import path from "node:path";
import { compareNumbers, parseVersion, readElf } from "./elf.mjs";
import { Explained, isMain, main, run } from "./process.mjs";

/** Debian 10, RHEL 8, and the oldest that VS Code itself supports. */
export const glibcFloor = [2, 28];

const libraries = {
  libc: "libc.so.6",
  libm: "libm.so.6",
  libpthread: "libpthread.so.0",
  libdl: "libdl.so.2",
  librt: "librt.so.1",
  ld: "ld-linux-x86-64.so.2",
};

/** glibc 2.34 moved these into libc; before, they stood in libraries of their own and an old system still looks there. */
function homeOf(library, name, newest) {
  const wasMoved = library === "libc" && compareNumbers(newest, [2, 34]) === 0;
  if (!wasMoved) return library;
  if (/^(_*pthread_|sem_)/.test(name)) return "libpthread";
  if (/^dl/.test(name)) return "libdl";
  if (/^shm_/.test(name)) return "librt";
  return undefined;
}

/** Library → symbols, each in the newest version that is not above the floor. What has only newer ones is left out. */
function symbolsOfFloor(filesOfLibraries) {
  const result = new Map(Object.keys(libraries).map((library) => [library, new Map()]));
  for (const [library, file] of Object.entries(filesOfLibraries)) {
    const versionsOfNames = new Map();
    for (const symbol of readElf(file).symbols) {
      const version = symbol.version === undefined ? undefined : parseVersion(symbol.version);
      // Each version has a symbol of its own name as well, which the linker makes.
      const isMarker = symbol.name === symbol.version;
      if (!symbol.isDefined || version?.family !== "GLIBC" || isMarker || symbol.type === "tls") continue;
      versionsOfNames.set(symbol.name, [
        ...(versionsOfNames.get(symbol.name) ?? []),
        { ...symbol, numbers: version.numbers },
      ]);
    }
    for (const [name, versions] of versionsOfNames) {
      versions.sort((a, b) => compareNumbers(a.numbers, b.numbers));
      const best = versions.findLast((each) => compareNumbers(each.numbers, glibcFloor) <= 0);
      const home = homeOf(library, name, versions.at(-1).numbers);
      if (best !== undefined && home !== undefined) result.get(home).set(name, best);
    }
  }
  return result;
}

function assembly(symbols) {
  const lines = [".text"];
  for (const { name, type } of symbols) {
    if (type !== "object") lines.push(`.globl ${name}`, `.type ${name}, @function`, `${name}:`);
  }
  lines.push(".bss", ".balign 32");
  for (const { name, type, bytes } of symbols) {
    if (type !== "object") continue;
    lines.push(`.globl ${name}`, `.type ${name}, @object`, `.size ${name}, ${bytes}`, `${name}:`);
  }
  lines.push(".zero 4096", '.section .note.GNU-stack, "", @progbits');
  return `${lines.join("\n")}\n`;
}

function versionScript(symbols) {
  const namesOfVersions = new Map();
  for (const { name, version } of symbols)
    namesOfVersions.set(version, [...(namesOfVersions.get(version) ?? []), name]);
  return [...namesOfVersions].map(([version, names]) => `${version} { global: ${names.join("; ")}; };\n`).join("");
}

async function buildStub(compiler, folder, library, symbols) {
  const source = path.join(folder, `${library}.s`);
  const script = path.join(folder, `${library}.map`);
  const fileName = libraries[library];
  fs.writeFileSync(source, assembly(symbols));
  fs.writeFileSync(script, versionScript(symbols));
  const linkOptions = [`-Wl,-soname,${fileName}`, `-Wl,--version-script,${script}`];
  await run(compiler, [
    "-shared",
    "-nostdlib",
    "-x",
    "assembler",
    source,
    "-o",
    path.join(folder, fileName),
    ...linkOptions,
  ]);
}

async function locate(compiler, fileName) {
  const file = (await run(compiler, [`-print-file-name=${fileName}`])).trim();
  if (!path.isAbsolute(file)) throw new Explained(`${compiler} has no ${fileName}; the glibc floor needs one.`);
  return file;
}

/**
 * What the linker finds as lib….so. Every link ends with libc, and after 2.34 nobody asks for libpthread and libdl any more, so
 * libc brings them along where they are needed; a few functions come from an archive.
 */
async function linkerScript(compiler, folder, library) {
  const stub = (name) => `"${path.join(folder, libraries[name])}"`;
  if (library !== "libc") return `INPUT(${stub(library)})\n`;
  const archive = `"${await locate(compiler, "libc_nonshared.a")}"`;
  return `GROUP(${stub("libc")} ${archive} AS_NEEDED(${["libpthread", "libdl", "librt", "ld"].map(stub).join(" ")}))\n`;
}

export async function buildLinkFolder(compiler, folder) {
  fs.mkdirSync(folder, { recursive: true });
  const files = {};
  for (const [library, fileName] of Object.entries(libraries)) files[library] = await locate(compiler, fileName);
  for (const [library, symbols] of symbolsOfFloor(files)) {
    await buildStub(compiler, folder, library, [...symbols.values()]);
    fs.writeFileSync(path.join(folder, `${library}.so`), await linkerScript(compiler, folder, library));
  }
}

if (isMain(import.meta)) {
  void main(async () => {
    const [compiler, folder] = process.argv.slice(2);
    if (folder === undefined) throw new Explained("usage: node scripts/native-link.mjs <C++ compiler> <folder>");
    await buildLinkFolder(compiler, path.resolve(folder));
  });
}
