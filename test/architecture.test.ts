// Owns: the walls of the house as a test: which file may import which, what a file may be called and how long it may be, and
// what must stand in no source. The table of doors is scripts/doors.mjs.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import ts from "typescript";
import { doors, nativeDoors, pagePackages } from "../scripts/doors.mjs";
import { listFiles } from "../scripts/freshness.mjs";
import { at } from "../scripts/paths.mjs";

interface Door {
  readonly rooms: readonly string[];
  readonly files: readonly string[];
  readonly node: boolean;
  readonly vscode: boolean;
  readonly packages: readonly string[];
}

const text = (file: string): string => fs.readFileSync(at(file), "utf8");
const sources = listFiles(["native", "src", "webview", "test", "scripts"], (file) =>
  /\.(ts|mjs|cc|h|css|cu|cuh)$/.test(file),
);

/** What a TypeScript file imports, exports from or requires, as written; found by the compiler's own scanner. */
export function importsOf(source: string): string[] {
  return ts.preProcessFile(source, true, true).importedFiles.map((file) => file.fileName);
}

export function includesOf(source: string): string[] {
  return [...source.matchAll(/^\s*#\s*include\s*["<]([^">]+)[">]/gm)].map((match) => match[1] ?? "");
}

const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");

/** Why this import is not allowed from this file, or null. */
export function forbiddenImport(file: string, specifier: string): string | null {
  const [top, room = ""] = file.split("/");
  const isPage = top === "webview";
  const door: Door = isPage
    ? { rooms: ["protocol"], files: [], node: false, vscode: false, packages: pagePackages }
    : ((doors as Record<string, Door>)[room] ?? assert.fail(`${file}: the room ${room} is not in scripts/doors.mjs`));
  if (specifier.startsWith("node:")) return door.node ? null : "Node";
  if (specifier === "vscode") return door.vscode ? null : "vscode";
  if (!specifier.startsWith(".")) return door.packages.includes(packageOf(specifier)) ? null : "package";
  const target = path.posix.join(path.posix.dirname(file), specifier);
  if (isPage && target.startsWith("webview/")) return null;
  const [targetTop, targetRoom = ""] = target.split("/");
  if (targetTop !== "src") return "outside src/";
  if (!isPage && targetRoom === room) return null;
  const isOpen = door.rooms.includes(targetRoom) || door.files.includes(target.slice("src/".length));
  return isOpen ? null : `room ${targetRoom}`;
}

/** Why a native file may not include this header, or null. Headers of the system are free. */
export function forbiddenInclude(file: string, header: string): string | null {
  const folder = path.posix.dirname(file).split("/")[1] ?? "";
  if (/^(napi|node_api|js_native_api)\b/.test(header)) return folder === "binding" ? null : "Node-API";
  if (/^(cuda|cublas|nccl)/.test(header)) return folder === "cuda" ? null : "CUDA";
  const candidates = [path.posix.join("native", header), path.posix.join(path.posix.dirname(file), header)];
  const target = candidates.find((candidate) => fs.existsSync(at(candidate)));
  if (target === undefined) return null;
  const inNative = target.slice("native/".length);
  const allowed: readonly string[] =
    (nativeDoors as Record<string, string[]>)[folder] ?? assert.fail(`${file}: ${folder} is not in scripts/doors.mjs`);
  const isOpen = allowed.some((door) => inNative === door || inNative.startsWith(`${door}/`));
  return isOpen ? null : inNative;
}

const complaints = (files: readonly string[], find: (file: string) => readonly string[]): string[] =>
  files.flatMap((file) => find(file).map((complaint) => `${file}: ${complaint}`));

test("TypeScript rooms import through open doors only", () => {
  const files = sources.filter((file) => /^(src\/[^/]+|webview)\/.*\.ts$/.test(file));
  assert.ok(files.length > 0);
  const found = complaints(files, (file) =>
    importsOf(text(file)).flatMap((specifier) => {
      const reason = forbiddenImport(file, specifier);
      return reason === null ? [] : [`${specifier} (${reason})`];
    }),
  );
  assert.deepEqual(found, []);
});

test("native folders include downwards only", () => {
  const files = sources.filter((file) => /^native\/.*\.(cc|h|cu|cuh)$/.test(file));
  assert.ok(files.length > 0);
  const found = complaints(files, (file) =>
    includesOf(text(file)).flatMap((header) => {
      const reason = forbiddenInclude(file, header);
      return reason === null ? [] : [`${header} (${reason})`];
    }),
  );
  assert.deepEqual(found, []);
});

test("the checks above see a closed door", () => {
  const imports = (source: string): string[] => importsOf(source);
  assert.deepEqual(
    imports('import {\n  a,\n} from "./x";\nexport * from "./y";\nimport "z";\nconst q = require("w");'),
    ["./x", "./y", "z", "w"],
  );
  assert.equal(forbiddenImport("src/protocol/qa.ts", "../engine/client"), "room engine");
  assert.equal(forbiddenImport("src/answer/ask.ts", "../engine/host"), "room engine");
  assert.equal(forbiddenImport("src/answer/ask.ts", "../engine/client"), null);
  assert.equal(forbiddenImport("src/context/scan.ts", "node:fs"), "Node");
  assert.equal(forbiddenImport("src/cli/main.ts", "vscode"), "vscode");
  assert.equal(forbiddenImport("src/cli/main.ts", "lodash"), "package");
  assert.equal(forbiddenImport("webview/qa/main.ts", "../../src/protocol/qa"), null);
  assert.equal(forbiddenImport("webview/qa/main.ts", "../../src/answer/ask"), "room answer");
  assert.equal(forbiddenInclude("native/model/engine.cc", "napi.h"), "Node-API");
  assert.equal(forbiddenInclude("native/binding/addon.cc", "napi.h"), null);
  assert.equal(forbiddenInclude("native/binding/addon.cc", "model/config.h"), "model/config.h");
  assert.equal(forbiddenInclude("native/io/file.cc", "engine.h"), "engine.h");
  assert.equal(forbiddenInclude("native/cpu/forward.cc", "model/config.h"), "model/config.h");
});

test("native code is loaded in one place", () => {
  const typescript = sources.filter((file) => file.startsWith("src/"));
  const loaders = typescript.filter((file) => /\bcreateRequire\b|\bdlopen\b/.test(text(file)));
  assert.deepEqual(loaders, ["src/engine/addon.ts"]);
  const importers = typescript.filter((file) => importsOf(text(file)).some((name) => /(^|\/)addon$/.test(name)));
  assert.deepEqual(importers, ["src/engine/host.ts"]);
});

test("what the worker's thread does is in no other bundle", () => {
  const typescript = sources.filter((file) => file.startsWith("src/"));
  const importersOf = (name: RegExp): string[] =>
    typescript.filter((file) =>
      importsOf(text(file).replace(/^import type .*$/gm, "")).some((specifier) => name.test(specifier)),
    );
  assert.deepEqual(importersOf(/(^|\/)jobs$/), ["src/worker/thread.ts"]);
  assert.deepEqual(importersOf(/(^|\/)(secretRules|treeParser)$/), ["src/context/jobs.ts"]);
  assert.deepEqual(importersOf(/^@secretlint\//), ["src/context/secretRules.ts"]);
  assert.deepEqual(importersOf(/^@vscode\/tree-sitter-wasm$/), ["src/context/syntax/treeParser.ts"]);
});

test("nothing in the product opens a network connection", () => {
  // A Socket over an inherited descriptor is how the engine host speaks to its client; it connects to nothing.
  const modules = /from "node:(http|https|http2|tls|dgram|dns)"|import (?!\{ Socket \}).* from "node:net"/;
  const calls = /\b(fetch|createConnection|createServer)\(|\bnew (XMLHttpRequest|WebSocket|EventSource)\b/;
  const product = sources.filter((file) => /^(src|webview)\//.test(file) && file !== "src/models/download.ts");
  assert.deepEqual(
    product.filter((file) => modules.test(text(file)) || calls.test(text(file))),
    [],
  );
});

test("the archived toolkit is imported by one file", () => {
  const importers = sources.filter(
    (file) =>
      file.startsWith("webview/") &&
      importsOf(text(file)).some((name) => name.startsWith("@vscode/webview-ui-toolkit")),
  );
  assert.ok(importers.length <= 1, importers.join(", "));
});

test("file names say what is inside", () => {
  const empty = /(^|[/_-])(utils?|helpers?|common|misc|managers?|services?)\.[a-z.]+$/i;
  assert.deepEqual(
    sources.filter((file) => empty.test(file)),
    [],
  );
});

test("no file is longer than 600 lines", () => {
  const long = sources.filter((file) => {
    const lines = text(file).split("\n");
    // Tables that a script wrote are data; nobody reads them as one idea.
    const isGenerated = /\bGenerated by scripts\//.test(lines.slice(0, 3).join("\n"));
    return !isGenerated && lines.length > 601;
  });
  assert.deepEqual(long, []);
});

test("sources hold no invisible characters", () => {
  // Soft hyphen, zero-width and direction marks, variation selectors, tags: the letters that hide code from a reader.
  const points = "00ad 034f 061c 115f-1160 17b4-17b5 180e 200b-200f 202a-202e 2060-206f 3164 fe00-fe0f feff ffa0";
  const ranges = `${points} e0000-e01ef`.split(" ");
  const escaped = ranges.map((range) => range.replace(/[0-9a-f]+/g, (code) => `\\u{${code}}`));
  const invisible = new RegExp(`[${escaped.join("")}]`, "u");
  const files = [...sources, ...listFiles(["docs", "package.json", "README.md", "eslint.config.mjs", ".ci"], isText)];
  assert.deepEqual(
    files.filter((file) => invisible.test(text(file))),
    [],
  );
});

test("docs/ARCHITECTURE.md names tests that exist", () => {
  const named = [...text("docs/ARCHITECTURE.md").matchAll(/`(test\/[^`]+)`: (.+?)(?= \(|<br>| +\|)/g)];
  assert.ok(named.length >= 13);
  const missing = named.filter(
    ([, file = "", title = ""]) => !(fs.existsSync(at(file)) && text(file).includes(`"${title}"`)),
  );
  assert.deepEqual(
    missing.map(([, file = "", title = ""]) => `${file}: ${title}`),
    [],
  );
});

test("nothing refers to notes outside the repository", () => {
  // Put together here, so that this file does not find itself.
  const extension = "\\.md";
  const notes = ["house", "anchors", "features", "reliability", "e2e", "cli"].map((name) => name + extension);
  const folders = ["design", "spec", "nano", "golden", "bench"].map((name) => ["\\.\\.", "shared", name].join("/"));
  const outside = new RegExp([...notes.map((note) => `\\b${note}`), ...folders, ["", "work", ""].join("/")].join("|"));
  const files = [
    ...sources,
    ...listFiles(["docs", "package.json", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"], isText),
  ];
  assert.deepEqual(
    files.filter((file) => outside.test(text(file))),
    [],
  );
});

function isText(file: string): boolean {
  return !/\.(png|svg|csv|safetensors)$/.test(file);
}
