// Which words of a question may be names from the code, and where a text defines them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { definitionsIn } from "../../src/context/definitions";
import { namesInQuestion } from "../../src/context/identifiers";
import { wordHits } from "../../src/context/search";

const questions: readonly {
  readonly question: string;
  readonly certain: readonly string[];
  readonly possible?: readonly string[];
}[] = [
  { question: "Where is `parse` defined?", certain: ["parse"] },
  { question: "Where is parse defined?", certain: [], possible: ["parse"] },
  { question: "What does Scanner.nextToken() do?", certain: ["Scanner.nextToken", "nextToken"] },
  {
    question: "What does MAX_SIZE mean and who uses read_file?",
    certain: ["MAX_SIZE", "read_file"],
    possible: ["mean"],
  },
  { question: 'Where does "file not found" come from?', certain: ["file not found"] },
  { question: "Which function doesn't use it's own state?", certain: [], possible: ["doesn", "own", "state"] },
  { question: "Show `std::vec::Vec`", certain: ["std::vec::Vec", "Vec"] },
  { question: "wo ist `größe`?", certain: ["größe"], possible: ["ist"] },
];

for (const { question, certain, possible } of questions) {
  test(`names in: ${question}`, () => {
    const names = namesInQuestion(question);
    assert.deepEqual(names.certain, certain);
    if (possible !== undefined) assert.deepEqual(names.possible, possible);
  });
}

test("a selected block is code, not words", () => {
  const names = namesInQuestion("Explain this code:\n```ts\nconst a = readAll(x);\n```\nand `b_c`");
  assert.deepEqual(names, { certain: ["b_c"], possible: [], code: ["const a = readAll(x);"] });
});

const sources: readonly { readonly path: string; readonly text: string; readonly names: readonly string[] }[] = [
  {
    path: "a.ts",
    text: `export function one() {
export default async function* two(a) {
export abstract class Three<T> extends B {
export interface Four {
type Five = string;
const six = (a: string): void => {
export const seven = 7;
  private async eight(a: number): Promise<void> {
  if (a) {
  return nine(a) {
exports.ten = 1;
Thing.prototype.eleven = function () {
  twelve: function () {
  get thirteen(): string {
  #fourteen() {
export enum Fifteen {
call(sixteen);`,
    names: [
      "one",
      "two",
      "Three",
      "Four",
      "Five",
      "six",
      "seven",
      "eight",
      "ten",
      "eleven",
      "twelve",
      "thirteen",
      "fourteen",
      "Fifteen",
    ],
  },
  {
    path: "a.py",
    text: "def one():\n    async def two(self):\nclass Three(B):\nFOUR = 4\n    five = 5\nif six == 6:",
    names: ["one", "two", "Three", "FOUR"],
  },
  {
    path: "a.go",
    text: "func One() {\nfunc (r *R) Two(a int) {\ntype Three struct {\nvar four = 4\n\treturn five(a)",
    names: ["One", "Two", "Three", "four"],
  },
  {
    path: "a.rs",
    text: "pub fn one() {\n    pub(crate) async unsafe fn two() {\npub struct Three {\nconst FOUR: u8 = 4;\nimpl Five for Six {\nmacro_rules! seven {",
    names: ["one", "two", "Three", "FOUR", "seven"],
  },
  {
    path: "a.c",
    text: "#define ONE 1\nstatic int two(char *a) {\nstruct three {\ntypedef struct x four;\n} five;\n  six(a);\nint seven(void);",
    names: ["ONE", "two", "three", "four", "five"],
  },
  {
    path: "a.rb",
    text: "def one?\n  def self.two\nclass Three < B\nmodule Four::Five",
    names: ["one?", "two", "Three", "Five"],
  },
  {
    path: "A.java",
    text: "public final class One {\n  public static List<String> two(int a) {\n  private int three = 3;",
    names: ["One", "two"],
  },
  {
    path: "a.kt",
    text: "fun one() {\n  override suspend fun two() {\nval three = 3\ndata class Four(",
    names: ["one", "two", "three", "Four"],
  },
  { path: "notes.md", text: "function one() {", names: [] },
];

for (const { path, text, names } of sources) {
  test(`definitions in ${path}`, () => {
    assert.deepEqual(
      definitionsIn(path, text).map(({ name }) => name),
      names,
    );
  });
}

test("a name is found as a whole word only", () => {
  assert.deepEqual(wordHits("parser reparse parse; $parse parse_x\nparse", "parse"), { hits: 2, firstOffset: 15 });
  assert.deepEqual(wordHits("a.b() a.bc", "a.b"), { hits: 1, firstOffset: 0 });
  assert.deepEqual(wordHits('x("== 1")', "== 1"), { hits: 1, firstOffset: 3 });
});
