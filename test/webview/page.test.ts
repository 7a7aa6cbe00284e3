// The page as it is built, read without running it: its policy, and that nothing in our sources turns text into markup or code.
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import ts from "typescript";
import { listFiles } from "../../scripts/freshness.mjs";
import { at } from "../../scripts/paths.mjs";
import { buildPage } from "../../src/extension/page";

const parts = {
  cspSource: "https://pages.test",
  scriptUri: "https://pages.test/qa.js",
  styleUri: "https://pages.test/qa.css",
  nonce: "c2FtcGxl",
  language: "en",
  title: "Ringside",
};

test("the policy is exactly this one", () => {
  const policies = [...buildPage(parts).matchAll(/http-equiv="Content-Security-Policy" content="([^"]*)"/g)];
  assert.deepEqual(
    policies.map((match) => match[1]),
    [
      "default-src 'none'; img-src https://pages.test; style-src https://pages.test " +
        "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; font-src https://pages.test; script-src 'nonce-c2FtcGxl'",
    ],
  );
});

test("the page has one script with the nonce, nothing inline, and what a screen reader needs", () => {
  const html = buildPage(parts);
  assert.deepEqual(
    [...html.matchAll(/<script\b[^>]*>([^<]*)<\/script>/g)].map((match) => match[0]),
    ['<script nonce="c2FtcGxl" src="https://pages.test/qa.js"></script>'],
  );
  assert.doesNotMatch(html, /<style\b|\sstyle=|\son\w+=|javascript:/i);
  assert.match(html, /<html lang="en">/);
  assert.match(html, /<title>Ringside<\/title>/);
  assert.match(html, /<main>\s*<h1>Ringside<\/h1>/);
});

test("what is put into the page cannot leave its place", () => {
  const html = buildPage({ ...parts, title: '"><script>x</script>', language: '"><img src=x>' });
  assert.equal([...html.matchAll(/<script/g)].length, 1);
  assert.doesNotMatch(html, /<img/);
});

/** What can turn a string into markup or code. */
const sinks = [
  "innerHTML",
  "outerHTML",
  "insertAdjacentHTML",
  "document.write",
  "eval(",
  "new Function",
  "createContextualFragment",
  "setHTMLUnsafe",
  "DOMParser",
  "srcdoc",
];
const countOf = (text: string, sink: string): number => text.split(sink).length - 1;

test("our sources use no sink", () => {
  const files = listFiles(["src", "webview"], (file: string) => file.endsWith(".ts"));
  const found: string[] = files.flatMap((file: string) => {
    const text = fs.readFileSync(at(file), "utf8");
    return sinks.filter((sink) => countOf(text, sink) > 0).map((sink) => `${file}: ${sink}`);
  });
  assert.deepEqual(found, []);
});

test("the sinks of the bundled libraries are the known ones", () => {
  const bundle = fs.readFileSync(at("dist", "webview", "qa.js"), "utf8");
  const counts = sinks.map((sink): [string, number] => [sink, countOf(bundle, sink)]);
  const found: Record<string, number> = Object.fromEntries(counts.filter(([, count]) => count !== 0));
  // A change here means that a library changed how it makes nodes: read what it does before writing the new number.
  assert.deepEqual(found, {
    // FAST makes its own constant templates and the toolkit's empty style; DOMPurify parses into a document without scripts.
    innerHTML: 7,
    outerHTML: 1,
    DOMParser: 1,
    // FAST's last resort for finding the global object, which a browser never needs.
    "new Function": 1,
  });
});

test("every visible string of the pages stands in the one table", () => {
  const files = listFiles(["webview"], (file: string) => file.endsWith(".ts") && !file.endsWith("/strings.ts"));
  assert.ok(files.length > 10);
  assert.deepEqual(files.flatMap(visibleStrings), []);
});

const keys = new Set(["Enter", "Escape"]);

/** Literals that read like words for people: several words, or a capital and lower case. */
function visibleStrings(file: string): string[] {
  const source = ts.createSourceFile(file, fs.readFileSync(at(file), "utf8"), ts.ScriptTarget.Latest, true);
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isThrowStatement(node) || ts.isImportDeclaration(node)) return;
    if (ts.isStringLiteralLike(node) && isForPeople(node)) found.push(`${file}: ${node.text}`);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function isForPeople({ text, parent }: ts.StringLiteralLike): boolean {
  if (keys.has(text)) return false;
  if (ts.isPropertyAssignment(parent) && parent.name.getText() === "class") return false;
  // A list of class names or of elements, as selectors have them, or the path of an icon.
  if (/^[a-z][\w-]*(?:,? [a-z][\w-]*)*$/.test(text)) return false;
  return /^[A-Z][a-z]+/.test(text) || /[A-Za-z]{2,} [A-Za-z]{2,}/.test(text);
}
