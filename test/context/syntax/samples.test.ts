// One file of each language against what a person found right in its outline, definitions and references.
// RINGSIDE_WRITE_GOLDENS=1 writes what is found now; read the difference before you keep it.
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { languages } from "../../../src/context/syntax/languages";
import type { FileSyntax } from "../../../src/context/syntax/fileSyntax";
import { at } from "../../../scripts/paths.mjs";
import { syntaxOf } from "./grammars";

const folder = at("test", "context", "syntax", "samples");
const ending = ".sample";
const samples = fs.readdirSync(folder).filter((file) => file.endsWith(ending));

function written({ outline, definitions, references }: FileSyntax): string {
  const defined = definitions.map(
    ({ name, line, kind, isTopLevel }) => `${String(line)} ${kind} ${name}${isTopLevel ? "" : " (inner)"}`,
  );
  const used = [...references].map(([name, times]) => `${name} ${String(times)}`).sort();
  return [outline, "--- definitions", ...defined, "--- references", ...used, ""].join("\n");
}

for (const sample of samples) {
  test(sample, async () => {
    const syntax = await syntaxOf(
      sample.slice(0, -ending.length),
      fs.readFileSync(`${folder}/${sample}`, "utf8").trimEnd(),
    );
    const golden = `${folder}/${sample.replace(ending, ".golden")}`;
    if (process.env["RINGSIDE_WRITE_GOLDENS"] === "1") fs.writeFileSync(golden, written(syntax));
    assert.equal(written(syntax), fs.readFileSync(golden, "utf8"));
  });
}

test("each grammar has a sample, and every sample but those of the line parser a grammar", () => {
  const extensions = samples.map((sample) => sample.slice(0, -ending.length).split(".").at(-1) ?? "");
  for (const { grammar, extensions: own } of languages) {
    assert.ok(
      own.some((extension) => extensions.includes(extension)),
      grammar,
    );
  }
});
