// Owns: which bundles exist and how they are made, and the grammars beside them. Must never bundle `vscode` or a native file.
import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import { at, root } from "./paths.mjs";
import { forget, whenStale } from "./freshness.mjs";
import { copyGrammars, grammarFiles } from "./grammars.mjs";
import { isMain, main, step } from "./process.mjs";

// esbuild is loaded late: this file is imported before `npm ci` has run.
const loadEsbuild = () => createRequire(import.meta.url)("esbuild");

const node = { platform: "node", target: "node20", format: "cjs", external: ["vscode", "*.node"] };
const page = { platform: "browser", target: "chrome120", format: "iife", minify: true };

const bundles = [
  { ...node, entryPoints: { extension: "src/extension/activate.ts" } },
  { ...node, entryPoints: { engineHost: "src/engine/host.ts" } },
  { ...node, entryPoints: { contextWorker: "src/worker/thread.ts" } },
  { ...node, entryPoints: { cli: "src/cli/main.ts" } },
  { ...page, entryPoints: { "webview/qa": "webview/qa/main.ts" } },
];

const inputs = [
  "src",
  "webview",
  "package-lock.json",
  "tsconfig.base.json",
  "scripts/bundle.mjs",
  "scripts/grammars.mjs",
];

/** Which source files and packages went into which bundle; ThirdPartyNotices.txt is made from it. */
export const bundleMetafile = at("build", "bundles.json");

const settings = (bundle, options) => ({
  ...bundle,
  absWorkingDir: root,
  outdir: at("dist"),
  bundle: true,
  metafile: true,
  legalComments: "none", // The licences stand in ThirdPartyNotices.txt.
  logLevel: "silent",
  ...options,
});

const outputFiles = () => [
  ...bundles.flatMap((bundle) => Object.keys(bundle.entryPoints)).map((name) => `dist/${name}.js`),
  ...grammarFiles,
];

export function buildBundles() {
  return whenStale({ name: "bundles", inputs, outputs: outputFiles() }, async () => {
    const esbuild = loadEsbuild();
    const results = await Promise.all(bundles.map((bundle) => esbuild.build(settings(bundle, {}))));
    const files = Object.assign({}, ...results.map((result) => result.metafile.inputs));
    fs.mkdirSync(path.dirname(bundleMetafile), { recursive: true });
    fs.writeFileSync(bundleMetafile, JSON.stringify(Object.keys(files).sort(), null, 1));
    copyGrammars();
  });
}

/** Rebuilds on every change until `stop` is called; each build is reported with its errors. */
export async function watchBundles(onBuilt) {
  forget("bundles"); // These carry source maps and are not for shipping.
  copyGrammars();
  const esbuild = loadEsbuild();
  const report = {
    name: "report",
    setup(build) {
      const names = Object.keys(build.initialOptions.entryPoints).join(", ");
      build.onEnd((result) => onBuilt(names, result.errors));
    },
  };
  const contexts = await Promise.all(
    bundles.map((bundle) => esbuild.context(settings(bundle, { sourcemap: true, plugins: [report] }))),
  );
  await Promise.all(contexts.map((context) => context.watch()));
  return () => Promise.all(contexts.map((context) => context.dispose()));
}

/** A single file for Node, outside dist/ (test suites that run inside the extension host). */
export async function bundleForNode(entry, outfile) {
  await loadEsbuild().build({
    ...node,
    absWorkingDir: root,
    entryPoints: [entry],
    outfile,
    bundle: true,
    logLevel: "silent",
    sourcemap: "inline",
    external: [...node.external, "mocha"],
  });
}

if (isMain(import.meta)) void main(() => step("bundles", buildBundles));
