// Owns: the VSIX: which files are in it (and no others) and how it is made. Must never build what it packs, but for the GPU
// backend of all cards, which takes minutes and is made only for shipping.
//
//   npm run package [-- --cuda]     with the GPU backend for all cards; else with that of this machine, if there is one
import fs from "node:fs";
import path from "node:path";
import { whenStale } from "./freshness.mjs";
import { buildCudaLibrary } from "./native-cuda.mjs";
import { grammarFiles } from "./grammars.mjs";
import { thirdPartyNotices } from "./notices.mjs";
import { at, cudaLibraryFile, vsixFile, vsixTarget } from "./paths.mjs";
import { isMain, main, run, say, step } from "./process.mjs";
import { setUp } from "./setup.mjs";

/** Copied from the checkout as they are. A file that is not named here does not ship; a named one that is missing fails. */
const copiedFiles = [
  "CHANGELOG.md",
  "LICENSE",
  "README.md",
  "dist/contextWorker.js",
  "dist/engineHost.js",
  "dist/extension.js",
  ...grammarFiles,
  "dist/native/ringside.node",
  "dist/webview/qa.css",
  "dist/webview/qa.js",
  "l10n/bundle.l10n.json",
  "media/icon.png",
  "media/nano/config.json",
  "media/nano/generation_config.json",
  "media/nano/model-00001-of-00002.safetensors",
  "media/nano/model-00002-of-00002.safetensors",
  "media/nano/model.safetensors.index.json",
  "media/nano/tokenizer.json",
  "media/nano/tokenizer_config.json",
  "media/ringside.svg",
  "package.nls.json",
];

const cudaLibrary = path.relative(at(), cudaLibraryFile);

/**
 * What is copied, and from where. `library`: the GPU backend to ship, as a path within the checkout; without it, the one that
 * set-up made for this machine's cards, if it made one.
 */
function copiedFrom(library) {
  const source = library ?? (fs.existsSync(cudaLibraryFile) ? cudaLibrary : undefined);
  const files = Object.fromEntries(copiedFiles.map((file) => [file, file]));
  return source === undefined ? files : { ...files, [cudaLibrary]: source };
}

/** Made while packing. */
const writtenFiles = {
  "package.json": () => `${JSON.stringify(shippedManifest(), null, 2)}\n`,
  "ThirdPartyNotices.txt": thirdPartyNotices,
};

/** The parts of the manifest that only a checkout needs stay out. */
function shippedManifest() {
  const {
    scripts,
    devDependencies,
    private: _private,
    ...manifest
  } = JSON.parse(fs.readFileSync(at("package.json"), "utf8"));
  return manifest;
}

/** What the finished VSIX holds, by the names the packager gives them; `library` as in copiedFrom(). */
export function expectedVsixFiles(library) {
  const renamed = { "README.md": "readme.md", "CHANGELOG.md": "changelog.md", LICENSE: "LICENSE.txt" };
  const listed = [...Object.keys(copiedFrom(library)), ...Object.keys(writtenFiles)];
  const files = listed.map((file) => `extension/${renamed[file] ?? file}`);
  return ["[Content_Types].xml", "extension.vsixmanifest", ...files].sort();
}

/**
 * The names in a zip file's central directory.
 * @param {string} file
 * @returns {string[]}
 */
export function filesInZip(file) {
  const bytes = fs.readFileSync(file);
  const end = bytes.lastIndexOf(Buffer.from("PK\x05\x06"));
  const names = [];
  let at = bytes.readUInt32LE(end + 16);
  for (let left = bytes.readUInt16LE(end + 10); left > 0; left--) {
    const [name, extra, comment] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field));
    names.push(bytes.toString("utf8", at + 46, at + 46 + name));
    at += 46 + name + extra + comment;
  }
  return names.sort();
}

/** Builds the VSIX unless it is up to date. dist/ must be ready. `library` as in copiedFrom(). */
export function packageVsix(library) {
  const copied = copiedFrom(library);
  const made = [
    "package.json",
    "build/bundles.json",
    "scripts/package.mjs",
    "scripts/notices.mjs",
    "scripts/grammars.mjs",
  ];
  const inputs = [...Object.values(copied), ...made];
  return whenStale({ name: "vsix", inputs, outputs: [path.relative(at(), vsixFile)] }, async () => {
    const staging = at("build", "vsix");
    fs.rmSync(staging, { recursive: true, force: true });
    const target = (file) => {
      fs.mkdirSync(path.dirname(path.join(staging, file)), { recursive: true });
      return path.join(staging, file);
    };
    for (const [file, source] of Object.entries(copied)) fs.copyFileSync(at(source), target(file));
    for (const [file, text] of Object.entries(writtenFiles)) fs.writeFileSync(target(file), text(Object.keys(copied)));
    const vsce = at("node_modules", "@vscode", "vsce", "vsce");
    const options = ["--no-dependencies", "--no-rewrite-relative-links", "--allow-missing-repository"];
    // A fixed time in the archive: equal inputs give an equal file.
    const env = { ...process.env, TZ: "UTC", SOURCE_DATE_EPOCH: "1767225600" };
    await run(process.execPath, [vsce, "package", "--target", vsixTarget, ...options, "-o", vsixFile], {
      cwd: staging,
      env,
    });
    return `${(fs.statSync(vsixFile).size / 1e6).toFixed(1)} MB`;
  });
}

if (isMain(import.meta)) {
  void main(async () => {
    await setUp();
    let library;
    if (process.argv.includes("--cuda")) {
      await step("GPU backend for all cards", async () => {
        library = await buildCudaLibrary([]);
      });
    }
    await step(`VSIX for ${vsixTarget}`, () => packageVsix(library));
    say(vsixFile);
  });
}
