// Owns: the grammars that the extension parses with: where each comes from, whose it is, and their copies in dist/. Must never
// list one that no language in src/context/syntax/languages/ names.
import fs from "node:fs";
import path from "node:path";
import { at } from "./paths.mjs";

const collection = "node_modules/@vscode/tree-sitter-wasm";
const inCollection = (name) => `${collection}/wasm/${name}.wasm`;
const max = (years) => [`Copyright (c) ${years} Max Brunsfeld`];

/** `copyright`: the lines of the MIT licence that name the grammar's owners; the collection has its own licence only. */
const grammars = [
  { name: "tree-sitter", file: inCollection("tree-sitter"), copyright: max("2018") },
  { name: "tree-sitter-c", file: "node_modules/tree-sitter-c/tree-sitter-c.wasm", copyright: max("2014") },
  {
    name: "tree-sitter-c-sharp",
    copyright: ["Copyright (c) 2014-2023 Max Brunsfeld, Damien Guard, Amaan Qureshi, and contributors."],
  },
  { name: "tree-sitter-cpp", copyright: max("2014") },
  { name: "tree-sitter-go", copyright: max("2014") },
  { name: "tree-sitter-java", copyright: ["Copyright (c) 2017 Ayman Nadeem"] },
  { name: "tree-sitter-javascript", copyright: max("2014") },
  {
    name: "tree-sitter-php",
    copyright: [
      "Copyright (c) 2017 Josh Vera, GitHub",
      "Copyright (c) 2019 Max Brunsfeld, Amaan Qureshi, Christian Frøystad, Caleb White",
    ],
  },
  { name: "tree-sitter-python", copyright: max("2016") },
  { name: "tree-sitter-ruby", copyright: ["Copyright (c) 2016 Rob Rix"] },
  { name: "tree-sitter-rust", copyright: ["Copyright (c) 2017 Maxim Sokolov"] },
  { name: "tree-sitter-tsx", copyright: max("2017") },
  { name: "tree-sitter-typescript", copyright: max("2017") },
];

/** From the name that a language uses to the file in node_modules. */
export const grammarSources = Object.fromEntries(
  grammars.map(({ name, file = inCollection(name) }) => [`${name}.wasm`, file]),
);

/** In dist/, beside the bundle of the thread that reads them. */
export const grammarFiles = Object.keys(grammarSources).map((name) => `dist/grammars/${name}`);

/** Packages whose files are copied, not bundled: the bundles' list does not name them all. */
export const grammarPackages = [collection, "node_modules/tree-sitter-c"];

export function copyGrammars() {
  fs.mkdirSync(at("dist", "grammars"), { recursive: true });
  for (const [name, source] of Object.entries(grammarSources)) {
    fs.copyFileSync(at(source), at("dist", "grammars", path.basename(name)));
  }
}

/** The text of the MIT licence for each, by `licence(copyright lines)`. */
export function grammarNotices(licence) {
  return grammars.map(({ name, copyright }) => `${name} (MIT)\n\n${licence(copyright.join("\n"))}\n`);
}
