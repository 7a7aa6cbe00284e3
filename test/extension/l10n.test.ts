// Every sentence of the extension can be translated: it stands in l10n/bundle.l10n.json or package.nls.json, and nothing stands
// there that is not used. With UPDATE_L10N=1 the bundle is written anew.
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import ts from "typescript";
import { listFiles } from "../../scripts/freshness.mjs";
import { at } from "../../scripts/paths.mjs";

const bundleFile = at("l10n", "bundle.l10n.json");
const sources = listFiles(["src/extension"], (file: string) => file.endsWith(".ts"));
const text = (file: string): string => fs.readFileSync(at(file), "utf8");

interface Found {
  readonly sentences: Set<string>;
  readonly complaints: string[];
}

function collect(file: string, found: Found): void {
  const source = ts.createSourceFile(file, text(file), ts.ScriptTarget.Latest, true);
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && node.expression.getText(source) === "l10n.t") {
      const [sentence] = node.arguments;
      if (sentence !== undefined && ts.isStringLiteralLike(sentence)) found.sentences.add(sentence.text);
      else found.complaints.push(`${file}: ${node.getText(source)}`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
}

test("the bundle holds exactly the sentences of the extension", () => {
  const found: Found = { sentences: new Set(), complaints: [] };
  for (const file of sources) collect(file, found);
  assert.deepEqual(found.complaints, []);
  const bundle = Object.fromEntries([...found.sentences].sort().map((sentence) => [sentence, sentence]));
  if (process.env["UPDATE_L10N"] === "1") fs.writeFileSync(bundleFile, `${JSON.stringify(bundle, null, 2)}\n`);
  assert.ok(found.sentences.size > 50);
  assert.deepEqual(JSON.parse(fs.readFileSync(bundleFile, "utf8")), bundle);
});

test("messages of VS Code's windows are never written in place", () => {
  const calls = /\bshow(?:Information|Warning|Error)Message\(\s*["'`]/;
  assert.deepEqual(
    sources.filter((file) => calls.test(text(file))),
    [],
  );
});

test("the manifest's strings and its table agree", () => {
  const manifest = text("package.json");
  const used = new Set([...manifest.matchAll(/"%([\w.]+)%"/g)].map((match) => match[1]));
  const table = JSON.parse(text("package.nls.json")) as Record<string, string>;
  assert.deepEqual(
    Object.keys(table).filter((key) => !used.has(key)),
    [],
  );
  assert.deepEqual(
    [...used].filter((key) => key === undefined || table[key] === undefined),
    [],
  );
});
