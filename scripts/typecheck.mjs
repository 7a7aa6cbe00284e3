// Owns: the type check of every room, each with the types that its tsconfig allows. Must never write a file.
import fs from "node:fs";
import { at } from "./paths.mjs";
import { Explained, isMain, main, run, say } from "./process.mjs";

/** Folders with a tsconfig.json of their own. */
export function rooms() {
  const inSrc = fs.readdirSync(at("src")).map((name) => `src/${name}`);
  return [...inSrc, "webview", "test"].filter((room) => fs.existsSync(at(room, "tsconfig.json")));
}

/** Checks all rooms, two at a time; throws one failure with everything that was found. */
export async function typecheck() {
  const waiting = rooms();
  const count = waiting.length;
  const findings = [];
  const worker = async () => {
    for (let room = waiting.shift(); room !== undefined; room = waiting.shift()) {
      const args = [
        "-p",
        room,
        "--incremental",
        "--tsBuildInfoFile",
        at("build", "types", `${room.replace("/", "-")}.json`),
      ];
      await run(process.execPath, [at("node_modules", "typescript", "bin", "tsc"), ...args]).catch((error) => {
        findings.push(error.output);
      });
    }
  };
  await Promise.all([worker(), worker()]);
  if (findings.length > 0) throw new Explained(findings.join("\n"));
  return `${count} rooms`;
}

if (isMain(import.meta)) void main(async () => say(await typecheck()));
