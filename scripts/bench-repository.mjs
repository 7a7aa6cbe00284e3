// Owns: the repositories that benches read: how large each is, and making it from text of the installed npm packages. The same
// packages give the same bytes. Must never fetch anything, and never put a link or a file with a name of its own making there.
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { whenStale } from "./freshness.mjs";
import { at } from "./paths.mjs";
import { Explained, isMain, main, run, say } from "./process.mjs";

const usage = `node scripts/bench-repository.mjs [--only NAMES] [--list]

  --only NAMES   repositories to make, by name, with commas (default: all)
  --list         print their names and stop

Makes build/bench-repositories/NAME, each once, and prints where it lies.`;

const textFile = /\.(?:[cm]?[jt]s|[jt]sx|json|md|ya?ml|py|sh|ps1|h|c|cc|go|rs|css|html|txt|def|gypi?)$/;
/** Larger files are left out of every plan, and a line that long is a machine's. */
const [fileLimitBytes, lineLimitCharacters] = [256 * 1024, 5_000];
/** Folders of this name are never read (src/context/exclusions.ts), but half of what a package brings is in them. */
const renamedFolders = { dist: "built", node_modules: "packages", vendor: "vendored", coverage: "covered" };

/**
 * What each repository holds. "checkout": what git has of this one. "first": files of these packages, in that order, until they have so many bytes; the nano model's
 * tokenizer makes about as many tokens of them as the name says, and 30,000 fit its window. "largest": so many files, of every package there is.
 */
const kinds = {
  ringside: { take: "checkout" },
  "30k-tokens": { take: "first", packages: ["mocha"], bytes: 100_000 },
  "100k-tokens": { take: "first", packages: ["eslint"], bytes: 388_000 },
  "1m-tokens": {
    take: "first",
    packages: ["eslint", "mocha", "undici", "ajv", "markdown-it", "cheerio", "yargs", "azure-devops-node-api"],
    bytes: 3_800_000,
  },
  "10000-files": { take: "largest", files: 10_000 },
};

export const repositoryNames = Object.keys(kinds);

/** Makes the repository unless it is there already. Returns its folder. */
export async function makeRepository(name) {
  const kind = kinds[name];
  if (kind === undefined) throw new Explained(`There is no repository ${name}; say ${repositoryNames.join(", ")}.`);
  const folder = path.join("build", "bench-repositories", name);
  if (kind.take === "checkout") {
    write(await checkedOutFiles(), at(folder));
    return at(folder);
  }
  const inputs = ["package-lock.json", "node_modules/.package-lock.json", "scripts/bench-repository.mjs"];
  await whenStale({ name: `bench-repository-${name}`, inputs, outputs: [folder] }, async () =>
    write(kind.take === "first" ? firstFiles(kind) : largestFiles(kind), at(folder)),
  );
  return at(folder);
}

function write(files, folder) {
  const unfinished = `${folder}.new`;
  fs.rmSync(unfinished, { recursive: true, force: true });
  for (const { source, target } of files) {
    const file = path.join(unfinished, target);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.copyFileSync(source, file);
  }
  fs.rmSync(folder, { recursive: true, force: true });
  fs.renameSync(unfinished, folder);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  say(`${path.basename(folder)}: ${files.length} files, ${(bytes / 1e6).toFixed(1)} MB`);
}

async function checkedOutFiles() {
  const targets = (await run("git", ["ls-files", "-z"])).split("\0").filter((target) => target !== "");
  const files = targets.map((target) => ({ source: at(target), target, stat: fs.lstatSync(at(target)) }));
  return files
    .filter(({ stat }) => stat.isFile() && stat.size <= fileLimitBytes)
    .map(({ source, target, stat }) => ({ source, target, bytes: stat.size }));
}

function firstFiles({ packages, bytes }) {
  const files = [];
  let total = 0;
  for (const file of filesOf(packages)) {
    if (total >= bytes) return files;
    files.push(file);
    total += file.bytes;
  }
  throw new Explained(`${packages.join(", ")} have ${total} bytes of text, and ${bytes} are wanted.`);
}

function largestFiles({ files: count }) {
  const all = [...filesOf(packageNames())];
  if (all.length < count)
    throw new Explained(`The packages have ${all.length} files of text, and ${count} are wanted.`);
  return all.sort((a, b) => b.bytes - a.bytes || (a.target < b.target ? -1 : 1)).slice(0, count);
}

function packageNames() {
  const names = sortedNames(at("node_modules")).filter((name) => !name.startsWith("."));
  return names.flatMap((name) =>
    name.startsWith("@") ? sortedNames(at("node_modules", name)).map((inner) => `${name}/${inner}`) : [name],
  );
}

/** Each text once: many packages bring the same licence or the same helper. */
function* filesOf(packages) {
  const seen = new Set();
  for (const name of packages) {
    for (const source of filesUnder(at("node_modules", name))) {
      const bytes = fs.readFileSync(source);
      const hash = createHash("sha256").update(bytes).digest("hex");
      if (seen.has(hash) || !isPlain(bytes)) continue;
      seen.add(hash);
      yield { source, target: targetOf(path.relative(at("node_modules"), source)), bytes: bytes.length };
    }
  }
}

function isPlain(bytes) {
  if (bytes.length === 0 || bytes.length > fileLimitBytes) return false;
  return bytes
    .toString("utf8")
    .split("\n")
    .every((line) => line.length <= lineLimitCharacters);
}

function* filesUnder(folder) {
  for (const name of sortedNames(folder)) {
    const file = path.join(folder, name);
    const stat = fs.lstatSync(file);
    if (stat.isDirectory()) yield* filesUnder(file);
    else if (stat.isFile() && textFile.test(name) && !/[.-]min\./.test(name)) yield file;
  }
}

/** By their characters, not by the language of the machine. */
const sortedNames = (folder) => fs.readdirSync(folder).sort();

function targetOf(relative) {
  const parts = relative.split(path.sep);
  return path.join("packages", ...parts.map((part) => renamedFolders[part] ?? part));
}

if (isMain(import.meta)) {
  void main(async () => {
    const options = { only: { type: "string" }, list: { type: "boolean" }, help: { type: "boolean" } };
    const { values } = parseArgs({ options });
    if (values.help) return void say(usage);
    if (values.list) return void process.stdout.write(`${repositoryNames.join("\n")}\n`);
    for (const name of values.only?.split(",") ?? repositoryNames) {
      process.stdout.write(`${await makeRepository(name)}\n`);
    }
  });
}
