// What is ignored is exactly what git ignores, for nested rule files and negations, on generated trees.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import * as fc from "fast-check";
import { DiskRepository } from "../../src/cli/diskRepository";
import { walk } from "../../src/context/walk";
import { folderWith } from "./folders";

const names = ["a", "b", "ab", "a b", "lib", "x.js", "y.js", "z.md", "[q]", "!n", "#h", "k*"];
const name = fc.constantFrom(...names);
const filePath = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));
const glob = fc.oneof(
  { weight: 4, arbitrary: name },
  fc.constantFrom(
    "*",
    "*.js",
    "**",
    "?",
    "a*",
    "*b",
    "[ab]",
    "[!a]",
    "x.*",
    "\\!n",
    "\\#h",
    "\\[q\\]",
    "a\\ b",
    "k\\*",
  ),
);
const rule = fc
  .record({
    negated: fc.boolean(),
    anchored: fc.boolean(),
    parts: fc.array(glob, { minLength: 1, maxLength: 3 }),
    isFolder: fc.boolean(),
    trailing: fc.constantFrom("", "", "", " ", "  "),
  })
  .map(
    ({ negated, anchored, parts, isFolder, trailing }) =>
      `${negated ? "!" : ""}${anchored ? "/" : ""}${parts.join("/")}${isFolder ? "/" : ""}${trailing}`,
  );
const line = fc.oneof({ weight: 8, arbitrary: rule }, fc.constantFrom("", "# a comment", "   "));
const ruleText = fc
  .tuple(fc.array(line, { maxLength: 5 }), fc.constantFrom("\n", "\r\n"))
  .map(([lines, end]) => lines.join(end));

/** Files only: a name that is a file cannot also be a folder. */
function tree(paths: readonly string[]): string[] {
  const files: string[] = [];
  for (const path of paths) {
    const clashes = files.some(
      (other) => other === path || other.startsWith(`${path}/`) || path.startsWith(`${other}/`),
    );
    if (!clashes) files.push(path);
  }
  return files;
}

function ignoredByGit(folder: string, files: readonly string[]): string[] {
  const git = (args: readonly string[], input = ""): { status: number | null; stdout: string } =>
    spawnSync("git", ["-c", "core.excludesFile=", "-c", "core.quotePath=false", ...args], {
      cwd: folder,
      input,
      encoding: "utf8",
      env: { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_SYSTEM: "/dev/null" },
    });
  assert.equal(git(["init", "-q"]).status, 0);
  const { stdout, status } = git(["check-ignore", "-z", "--stdin", "--no-index"], files.join("\0"));
  assert.ok(status === 0 || status === 1, `git check-ignore: ${String(status)}`);
  return stdout.split("\0").filter((file) => file !== "");
}

test("nested .gitignore files and negations leave out what git leaves out", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(filePath, { minLength: 1, maxLength: 12 }),
      ruleText,
      fc.array(fc.tuple(fc.nat(), ruleText), { maxLength: 3 }),
      async (paths, rootRules, nested) => {
        const files = tree(paths);
        const content: Record<string, string> = Object.fromEntries(files.map((file) => [file, "text"]));
        content[".gitignore"] = rootRules;
        const folders = [
          ...new Set(
            files.flatMap((file) =>
              file
                .split("/")
                .slice(0, -1)
                .map((_, i, all) => all.slice(0, i + 1).join("/")),
            ),
          ),
        ];
        for (const [pick, rules] of nested) {
          const folder = folders[pick % Math.max(1, folders.length)];
          if (folder !== undefined) content[`${folder}/.gitignore`] = rules;
        }
        const folder = folderWith(t, content);
        const { paths: kept } = await walk(new DiskRepository(folder), 1_000);
        const ignored = new Set(ignoredByGit(folder, files));
        assert.deepEqual(
          kept.filter((file) => !file.endsWith(".gitignore")),
          files.filter((file) => !ignored.has(file)).sort(),
        );
      },
    ),
    { numRuns: 150 },
  );
});

const cases: readonly {
  readonly title: string;
  readonly files: Readonly<Record<string, string>>;
  readonly kept: readonly string[];
}[] = [
  {
    title: "a deeper file takes back what a higher one ignores, but not below an ignored folder",
    files: {
      ".gitignore": "*.log\nsecret/\n",
      "a/.gitignore": "!keep.log\n",
      "a/keep.log": "",
      "a/other.log": "",
      "secret/.gitignore": "!all\n",
      "secret/all": "",
    },
    kept: [".gitignore", "a/.gitignore", "a/keep.log"],
  },
  {
    title: ".ringsideignore wins over .gitignore in the same folder",
    files: {
      ".gitignore": "notes.md\n",
      ".ringsideignore": "!notes.md\nb.ts\n",
      "notes.md": "",
      "b.ts": "",
      "c.ts": "",
    },
    kept: [".gitignore", ".ringsideignore", "c.ts", "notes.md"],
  },
  {
    title: "dependencies are left out without any ignore file, and can be taken back",
    files: { ".ringsideignore": "!vendor/\n", "node_modules/x/index.js": "", "vendor/y.go": "", "z.go": "" },
    kept: [".ringsideignore", "vendor/y.go", "z.go"],
  },
  {
    title: "a rule of a folder whose name holds glob characters stays in that folder",
    files: { "[q]/.gitignore": "x.js\n/y.js\n", "[q]/x.js": "", "[q]/y.js": "", "[q]/d/y.js": "", "q/x.js": "" },
    kept: ["[q]/.gitignore", "[q]/d/y.js", "q/x.js"],
  },
];

for (const { title, files, kept } of cases) {
  test(title, async (t) => {
    const { paths } = await walk(new DiskRepository(folderWith(t, files)), 1_000);
    assert.deepEqual(paths, kept);
  });
}
