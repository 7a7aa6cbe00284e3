// Files that were made, cut or bent to break a parser. What is read of them may be poor, but it comes, in time, and is true.
import assert from "node:assert/strict";
import fs from "node:fs";
import { after, test } from "node:test";
import fc from "fast-check";
import { languages } from "../../../src/context/syntax/languages";
import {
  longestNameCharacters,
  mostDefinitions,
  mostReferences,
  packSyntax,
  unpackSyntax,
} from "../../../src/context/syntax/fileSyntax";
import type { FileSyntax } from "../../../src/context/syntax/fileSyntax";
import { syntaxOfLines } from "../../../src/context/syntax/lineParser";
import { WorkerSyntaxReader } from "../../../src/context/syntax/syntaxReader";
import { TreeParser } from "../../../src/context/syntax/treeParser";
import { createContextWorker } from "../../../src/worker/client";
import { at } from "../../../scripts/paths.mjs";
import { readGrammar, syntaxOf } from "./grammars";

const extensions = [...languages.map((language) => language.extensions[0] ?? ""), "lua", "md", "txt"];
const folder = at("test", "context", "syntax", "samples");
const samples = fs
  .readdirSync(folder)
  .filter((file) => file.endsWith(".sample"))
  .map((file) => ({
    path: file.slice(0, -".sample".length),
    text: fs.readFileSync(`${folder}/${file}`, "utf8"),
  }));

const bytes = (text: string): number => Buffer.byteLength(text);

/** What holds for the syntax of any text. */
function check(text: string, syntax: FileSyntax): void {
  const lines = text.split("\n");
  let next = 0;
  for (const line of syntax.outline === "" ? [] : syntax.outline.split("\n")) {
    const found = lines.indexOf(line, next);
    if (found >= 0) next = found + 1;
    else assert.match(line, /^\s*…$/);
  }
  assert.ok(bytes(syntax.outline) <= bytes(text));
  assert.ok(syntax.definitions.length <= mostDefinitions);
  let line = 1;
  for (const definition of syntax.definitions) {
    assert.ok(definition.line >= line && definition.line <= lines.length);
    line = definition.line;
    assert.ok((lines[line - 1] ?? "").includes(definition.name), definition.name);
    assert.ok(definition.name !== "" && definition.name.length <= longestNameCharacters);
  }
  assert.ok(syntax.references.size <= mostReferences);
  for (const [name, times] of syntax.references) assert.ok(/^\S+$/.test(name) && times > 0 && text.includes(name));
  const unpacked = unpackSyntax(structuredClone(packSyntax(syntax)));
  assert.deepEqual([...unpacked.references], [...syntax.references]);
  assert.equal(unpacked.outline, syntax.outline);
}

const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 300 }),
  fc.string({ unit: fc.constantFrom(..."(){}[]<>\"'`/*#\\\n\r\t ,;:=.aZ0_$@\0\ud800…é😀".split("")), maxLength: 300 }),
);

test("property: any text has a syntax that is true of it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...extensions), anyText, async (extension, text) => {
      check(text, await syntaxOf(`a.${extension}`, text));
      check(text, syntaxOfLines(`a.${extension}`, text));
    }),
    { numRuns: 300 },
  );
});

test("property: so has any file that was cut, doubled, or changed at a few places, in any language", async () => {
  const change = fc.record({
    sample: fc.constantFrom(...samples),
    extension: fc.option(fc.constantFrom(...extensions)),
    cut: fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
    inserted: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), anyText), { maxLength: 3 }),
    isCrLf: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(change, async ({ sample, extension, cut, inserted, isCrLf }) => {
      const [from, to] = cut.map((share) => Math.floor(share * sample.text.length)).sort((a, b) => a - b);
      let text = sample.text.slice(0, from) + sample.text.slice(to);
      for (const [share, piece] of inserted) {
        const place = Math.floor(share * text.length);
        text = text.slice(0, place) + piece + text.slice(place);
      }
      if (isCrLf) text = text.replaceAll("\n", "\r\n");
      check(text, await syntaxOf(extension === null ? sample.path : `a.${extension}`, text));
    }),
    { numRuns: 300 },
  );
});

const deep = 100_000;
const shapes: Readonly<Record<string, string>> = {
  "open parentheses": "(".repeat(deep),
  "closed parentheses": "(".repeat(deep) + ")".repeat(deep),
  "open brackets": "[".repeat(deep),
  "open braces": "{".repeat(deep),
  "functions in functions": "function f() {".repeat(deep / 10),
  "closures in closures": "a(function () {".repeat(deep / 10),
  "classes in classes": "class A {\n".repeat(deep / 10),
  "deeper and deeper": Array.from({ length: 2_000 }, (_, depth) => `${" ".repeat(depth)}if x:`).join("\n"),
  "one line of a megabyte": `const a = ${"x + ".repeat(250_000)}1;`,
  "one word of a megabyte": "x".repeat(1_000_000),
  "one string of a megabyte": `a = "${"x".repeat(1_000_000)}"`,
  "one comment of a megabyte": `/* ${"x\n".repeat(500_000)} */ function f() {}`,
  "an argument list of strings": `f(${'"x", '.repeat(deep)})`,
  "many statements": "a;\n".repeat(deep),
  "many functions": "function f() {}\n".repeat(deep / 4),
  "many names": Array.from({ length: 30_000 }, (_, index) => `name${String(index)}();`).join("\n"),
  "open strings": '"\n'.repeat(deep),
  "open templates": "`${".repeat(deep / 4),
  "angle brackets": `a${"<a".repeat(deep / 4)}`,
  conditions: "a ? ".repeat(deep / 4),
  casts: "(a)".repeat(deep / 4),
  stars: `int ${"*".repeat(deep)}a;`,
  "here documents": "<<A <<B <<C\n".repeat(deep / 20),
  directives: "#if A\n".repeat(deep / 10),
  "zero bytes": "\0".repeat(deep),
  "halves of characters": "\ud800".repeat(deep),
  "carriage returns": "a\r".repeat(deep),
  spaces: " ".repeat(1_000_000),
  "empty lines": "\n".repeat(1_000_000),
};

/** The parser's own limit, what the lines then take, and the start of a thread where the grammar's memory did not suffice. */
const limitMs = 8_000;

// On the thread of the product: some of these end it.
const log: string[] = [];
const worker = createContextWorker({ script: at("dist", "contextWorker.js"), log: (line) => log.push(line) });
const reader = new WorkerSyntaxReader(worker);
after(() => reader.dispose());

for (const [index, [title, text]] of Object.entries(shapes).entries()) {
  test(`in time, by a grammar or by its lines: ${title}`, async () => {
    // Every fifth of the languages, another one for each shape: all of them would take minutes.
    for (const extension of extensions.filter((_, place) => (place + index) % 5 === 0)) {
      const before = process.cpuUsage();
      const syntax = await reader.read(`a.${extension}`, text);
      const { user, system } = process.cpuUsage(before);
      assert.ok((user + system) / 1_000 < limitMs, `${extension} took ${String((user + system) / 1_000)} ms`);
      check(text, syntax);
    }
    assert.equal((await reader.read("a.ts", "export function next() {}")).parser, "tree-sitter");
  });
}

test("a file that needs more steps or time than it may have is left to its lines, and the next is parsed", async () => {
  const text = "export function f() {}\n".repeat(2_000);
  for (const limits of [{ steps: () => 10 }, { fileMs: 0 }, { fileCharacters: 1_000 }]) {
    const trees = new TreeParser(readGrammar, limits);
    assert.equal(await trees.read("a.ts", text), null);
    if (!("fileMs" in limits))
      assert.equal((await trees.read("a.ts", "export function f() {}"))?.parser, "tree-sitter");
  }
});

test("a grammar that is not there, or is none, leaves its files to their lines", async () => {
  for (const grammar of [undefined, new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]), new Uint8Array(100)]) {
    const trees = new TreeParser(async (file) => {
      if (file !== "tree-sitter-go.wasm") return readGrammar(file);
      if (grammar === undefined) throw new Error("no such file");
      return grammar;
    });
    assert.equal(await trees.read("a.go", "package a"), null);
    assert.equal(await trees.read("a.go", "package a"), null);
    assert.equal((await trees.read("a.py", "a = 1"))?.parser, "tree-sitter");
  }
});
