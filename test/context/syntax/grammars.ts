// Owns: the parser as its tests use it: with the grammars of node_modules, on the test's own thread.
import fs from "node:fs";
import { syntaxOfLines } from "../../../src/context/syntax/lineParser";
import type { FileSyntax } from "../../../src/context/syntax/fileSyntax";
import { TreeParser } from "../../../src/context/syntax/treeParser";
import type { ReadGrammar } from "../../../src/context/syntax/treeParser";
import { grammarSources } from "../../../scripts/grammars.mjs";
import { at } from "../../../scripts/paths.mjs";

export const readGrammar: ReadGrammar = async (file) =>
  fs.promises.readFile(at((grammarSources as Record<string, string>)[file] ?? file));

const trees = new TreeParser(readGrammar);

export async function syntaxOf(path: string, text: string): Promise<FileSyntax> {
  return (await trees.read(path, text)) ?? syntaxOfLines(path, text);
}
