// The check of the glibc floor finds what it is there for, and linking against the floor's symbol lists is what cures it.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { compareNumbers, parseVersion, readElf } from "../../scripts/elf.mjs";
import { buildLinkFolder } from "../../scripts/native-link.mjs";
import { run } from "../../scripts/process.mjs";
import { problemsOf } from "../../scripts/symbols.mjs";

const hasGlibc = process.platform === "linux" && process.arch === "x64" && fs.existsSync("/lib64/ld-linux-x86-64.so.2");
const options = { skip: hasGlibc ? false : "needs Linux x64 with glibc" };

let folder = "";
before(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "ringside symbols-"));
});
after(() => fs.rmSync(folder, { recursive: true }));

async function link(name: string, source: string, ...flags: string[]): Promise<string> {
  const sourceFile = path.join(folder, `${name}.cc`);
  const file = path.join(folder, `${name}.so`);
  fs.writeFileSync(sourceFile, source);
  await run("c++", ["-shared", "-fPIC", "-O1", sourceFile, "-o", file, ...flags]);
  return file;
}

const source = `
#include <cmath>
#include <string>
#include <thread>
__attribute__((visibility("default"))) double power(double a, double b) {
  std::string text = std::to_string(a);
  std::thread([&] { text += "x"; }).join();
  return std::pow(a, b) + static_cast<double>(text.size());
}
`;

test("versions compare by their numbers", () => {
  assert.deepEqual(parseVersion("GLIBC_2.17"), { family: "GLIBC", numbers: [2, 17] });
  assert.deepEqual(parseVersion("GLIBCXX_3.4.30"), { family: "GLIBCXX", numbers: [3, 4, 30] });
  assert.equal(parseVersion("GLIBC_PRIVATE"), undefined);
  assert.equal(parseVersion("GLIBC_ABI_DT_RELR"), undefined);
  assert.ok(compareNumbers([2, 9], [2, 28]) < 0);
  assert.ok(compareNumbers([2, 28], [2, 28]) === 0);
  assert.ok(compareNumbers([2, 28, 1], [2, 28]) > 0);
  assert.ok(compareNumbers([3], [2, 28]) > 0);
});

test("a library that is linked as usual is refused, each missing thing named", options, async () => {
  const problems = problemsOf(await link("usual", source));
  assert.ok(problems.includes("it loads libstdc++.so.6"), problems.join("\n"));
  assert.ok(
    problems.some((line) => / needs GLIBCXX_3\.4/.test(line)),
    problems.join("\n"),
  );
  const machine = readElf(await libraryOf("libm.so.6"));
  const hasNewerPow = machine.symbols.some(({ name, version }) => name === "pow" && version === "GLIBC_2.29");
  assert.equal(problems.includes("pow needs GLIBC_2.29"), hasNewerPow);
});

test("the same library linked against the floor is accepted", options, async () => {
  await buildLinkFolder("c++", path.join(folder, "floor"));
  const flags = ["-static-libstdc++", "-Wl,--gc-sections", "-Wl,--exclude-libs,ALL", `-L${path.join(folder, "floor")}`];
  const file = await link("floor", source, "-fvisibility=hidden", ...flags);
  const problems = problemsOf(file).filter((line) => !line.startsWith("__libc_single_threaded "));
  assert.deepEqual(problems, []);
  const versionOf = (wanted: string): string | undefined =>
    readElf(file).symbols.find(({ name, isDefined }) => name === wanted && !isDefined)?.version;
  assert.equal(versionOf("pow"), "GLIBC_2.2.5");
  assert.equal(versionOf("pthread_create"), "GLIBC_2.2.5");
  assert.ok(readElf(file).libraries.includes("libpthread.so.0"));
});

test("a function that nobody defines is named, one of Node is not", options, async () => {
  const file = await link(
    "missing",
    'extern "C" { int napi_thing(); int no_such(); int both() { return napi_thing() + no_such(); } }',
  );
  assert.deepEqual(
    problemsOf(file).filter((line) => line.includes("defined nowhere")),
    ["no_such is defined nowhere on the floor"],
  );
});

test("what is no ELF file is refused in one sentence", () => {
  const file = path.join(folder, "text");
  fs.writeFileSync(file, "not a library");
  assert.throws(() => problemsOf(file), /is not a 64-bit little-endian ELF file/);
});

async function libraryOf(fileName: string): Promise<string> {
  return (await run("c++", [`-print-file-name=${fileName}`])).trim();
}
