// The main job end to end, in the terminal: the real model reads a real repository and every answer is checked against the
// files on disk, not against what the product says of itself.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { at } from "../../scripts/paths.mjs";
import { isFound } from "../../src/protocol/qa";
import type { Citation, PlannedFile, RefusalCheck } from "../../src/protocol/qa";
import {
  type Definition,
  definitionsIn,
  draw,
  linesOf,
  removeTemporaryFolder,
  temporaryFolder,
  writeLargeRepository,
  writePackages,
} from "./repositories";

interface Answer {
  readonly answer: string;
  readonly citations: readonly Pick<Citation, "path" | "startLine" | "endLine" | "status" | "namedPath">[];
  readonly plan: { readonly budgetTokens: number; readonly files: readonly PlannedFile[] };
  readonly stats: { readonly promptTokens: number; readonly reusedTokens: number };
  readonly refusal?: RefusalCheck | null;
}

const whereIs = (name: string): string => `Where is \`${name}\` defined?`;
const missingName = "paintLanternGlyphs";
const folders: string[] = [];
let packages = "";
let symbols: Definition[] = [];
/** To the symbols in their order, then to the name that does not exist: one reading of the repository for all. */
let answers: Answer[] = [];

before(() => {
  packages = writePackages();
  folders.push(packages);
  const seed = Number(process.env["RINGSIDE_SEED"] ?? randomInt(2 ** 31));
  console.log(`RINGSIDE_SEED=${String(seed)}`);
  symbols = draw(definitionsIn(packages), 20, seed);
  answers = ask(packages, [...symbols.map(({ name }) => name), missingName].map(whereIs));
});
after(() => {
  for (const folder of folders) removeTemporaryFolder(folder);
});

function ask(repository: string, questions: readonly string[]): Answer[] {
  const folder = temporaryFolder("questions");
  folders.push(folder);
  const file = path.join(folder, "questions.txt");
  fs.writeFileSync(file, questions.map((question) => `${question}\n`).join(""));
  const command = [at("dist", "cli.js"), "ask", "--repo", repository, "--questions", file, "--json"];
  const result = spawnSync(process.execPath, command, { encoding: "utf8", maxBuffer: 64 << 20 });
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(result.stdout) as Answer[];
}

/** Citations that are shown as found although the lines of the file differ from what the answer quotes. */
function wrongCitations(repository: string, { answer, citations }: Answer): string[] {
  const said = answer.split("\n").map((line) => line.trimEnd());
  return citations.filter(isFound).flatMap(({ path: file, startLine, endLine }) => {
    const there = linesOf(repository, file)
      .slice(startLine - 1, endLine)
      .map((line) => line.trimEnd());
    // A path in running text has no lines; that its file exists is what it claims, and reading it above has shown that.
    if (startLine === 0) return [];
    const stands = said.some((_, start) => there.every((line, index) => said[start + index] === line));
    return there.length > 0 && stands ? [] : [`${file}:${String(startLine)}-${String(endLine)}`];
  });
}

test("definitions of two packages are shown at the right place, and nothing is shown as found that is not there", () => {
  assert.equal(symbols.length, 20);
  assert.equal(answers.length, 21);
  const missed = symbols.filter((symbol, index) => {
    const isRight = (citation: Answer["citations"][number]): boolean =>
      isFound(citation) &&
      citation.path === symbol.path &&
      citation.startLine <= symbol.line &&
      symbol.line <= citation.endLine;
    return answers[index]?.citations.some(isRight) !== true;
  });
  console.log(`at the right place: ${String(symbols.length - missed.length)} of ${String(symbols.length)}`);
  for (const { name, path: file, line } of missed) console.log(`missed: ${name} (${file}:${String(line)})`);
  assert.deepEqual(
    answers.flatMap((answer) => wrongCitations(packages, answer)),
    [],
  );
  assert.ok(missed.length <= 5, `${String(missed.length)} of 20 were missed`);
  // The repository is read once: later questions reuse all but its last, open chunk.
  for (const { stats } of answers.slice(1)) {
    assert.ok(
      stats.promptTokens - stats.reusedTokens < 256,
      `${String(stats.promptTokens - stats.reusedTokens)} read again`,
    );
  }
});

test("a name that does not exist is refused, and the refusal is confirmed", () => {
  const answer = answers[symbols.length];
  assert.ok(answer);
  assert.match(answer.answer, new RegExp(`could not find \`?${missingName}`, "i"));
  assert.deepEqual(answer.citations.filter(isFound), []);
  assert.deepEqual(answer.refusal, { name: missingName, places: [] });
});

test("in a repository larger than the window a question brings its file along, or the place that was not read is named", () => {
  const { folder, small, unread } = writeLargeRepository();
  folders.push(folder);
  const [found, refused] = ask(folder, [whereIs(small.name), whereIs(unread.name)]);
  assert.ok(found && refused);

  const planned = found.plan.files.find((file) => file.path === small.path);
  assert.equal(planned?.mode, "full");
  assert.equal(planned.reason, "supplement");
  assert.ok(
    found.citations.some((citation) => isFound(citation) && citation.path === small.path),
    found.answer,
  );
  assert.deepEqual(wrongCitations(folder, found), []);

  const dropped = refused.plan.files.find((file) => file.path === unread.path);
  assert.equal(dropped?.mode, "dropped");
  assert.deepEqual(wrongCitations(folder, refused), []);
  assert.deepEqual(refused.refusal, {
    name: unread.name,
    places: [{ path: unread.path, line: unread.line, wasRead: false }],
  });
});
