// Owns: `npm run dev`: bundles, types and the native engine kept up to date while one edits. Must never start an editor.
import fs from "node:fs";
import { watchBundles } from "./bundle.mjs";
import { buildNative } from "./native.mjs";
import { at } from "./paths.mjs";
import { isMain, main, say, step } from "./process.mjs";
import { setUp } from "./setup.mjs";
import { typecheck } from "./typecheck.mjs";

/** Editors write a file in several steps; one build for all of them. */
const settleMs = 200;

/** Calls `work` after changes under the folders, never twice at a time. */
function onChange(folders, work) {
  let timer = null;
  let running = false;
  let changedMeanwhile = false;
  const start = async () => {
    if (running) {
      changedMeanwhile = true;
      return;
    }
    running = true;
    await work().catch((error) => say(error.message));
    running = false;
    if (changedMeanwhile) {
      changedMeanwhile = false;
      await start();
    }
  };
  for (const folder of folders) {
    fs.watch(at(folder), { recursive: true }, () => {
      clearTimeout(timer);
      timer = setTimeout(start, settleMs);
    });
  }
  return start();
}

if (isMain(import.meta)) {
  void main(async () => {
    await setUp();
    await watchBundles((names, errors) => {
      say(errors.length === 0 ? `✓ bundle ${names}` : `✗ bundle ${names}`);
      for (const { text, location } of errors) say(`  ${location ? `${location.file}:${location.line}: ` : ""}${text}`);
    });
    await onChange(["src", "webview", "test"], () => step("types", typecheck));
    await onChange(["native"], () => step("native engine", () => buildNative()));
    say("Watching. Ctrl+C stops.");
  });
}
