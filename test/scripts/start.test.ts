// `npm start`: which folder, which editor, and that the user's own installation is never touched.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { at } from "../../scripts/paths.mjs";
import { folderToOpen, meetsFloor } from "../../scripts/start.mjs";

let home = "";
beforeEach(() => {
  home = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "ringside-start-")));
});
afterEach(() => fs.rmSync(home, { recursive: true }));

test("versions are compared as numbers", () => {
  const cases: [version: string, floor: string, expected: boolean][] = [
    ["1.127.0", "^1.127.0", true],
    ["1.127.1", "^1.127.0", true],
    ["1.139.1", "^1.127.0", true],
    ["2.0.0", "^1.127.0", true],
    ["1.126.9", "^1.127.0", false],
    ["1.99.3", "^1.127.0", false],
    ["not a version", "^1.127.0", false],
  ];
  for (const [version, floor, expected] of cases) assert.equal(meetsFloor(version, floor), expected, version);
});

test("a folder that is none is one sentence", () => {
  assert.equal(folderToOpen(home), home);
  assert.equal(folderToOpen(undefined), fs.realpathSync(at()));
  assert.throws(() => folderToOpen(path.join(home, "gone")), {
    message: `There is no folder ${path.join(home, "gone")}.`,
  });
  fs.writeFileSync(path.join(home, "file"), "");
  assert.throws(() => folderToOpen(path.join(home, "file")), {
    message: `${path.join(home, "file")} is not a folder.`,
  });
});

test("a folder that is none ends with exit code 1 before anything is built", () => {
  const result = spawnSync(process.execPath, [at("scripts", "start.mjs"), path.join(home, "gone")], {
    encoding: "utf8",
  });
  assert.equal(result.status, 1);
  assert.equal(result.stderr, `There is no folder ${path.join(home, "gone")}.\n`);
});

/** Runs the choice of an editor with a `code` on the PATH that prints `version` and notes its arguments. */
function chooseEditor(version: string, environment: NodeJS.ProcessEnv): { chosen: string; calls: string[] } {
  const log = path.join(home, "calls");
  fs.writeFileSync(
    path.join(home, "code"),
    `#!/bin/sh\necho "$*" >> ${log}\nif [ "$1" = --version ]; then echo ${version}; fi\n`,
    { mode: 0o755 },
  );
  const script = `import { desktopCode, openDesktop } from ${JSON.stringify(at("scripts", "start.mjs"))};
    const program = await desktopCode();
    console.log(program);
    if (program !== null) await openDesktop(program, ${JSON.stringify(home)});`;
  const result = spawnSync(process.execPath, ["--input-type=module", "--eval", script], {
    encoding: "utf8",
    env: { PATH: `${home}:/usr/bin:/bin`, HOME: home, DISPLAY: ":0", ...environment },
  });
  assert.equal(result.status, 0, result.stderr);
  const calls = fs.existsSync(log) ? fs.readFileSync(log, "utf8").trim().split("\n") : [];
  return { chosen: result.stdout.trim(), calls };
}

test("a desktop VS Code gets a profile of its own", () => {
  const { chosen, calls } = chooseEditor("1.139.1", {});
  assert.equal(chosen, path.join(home, "code"));
  const [version, install = "", open = ""] = calls;
  assert.equal(version, "--version");
  for (const call of [install, open]) {
    assert.match(call, new RegExp(`--user-data-dir=${home}/.local/share/ringside/desktop/data `));
    assert.match(call, new RegExp(`--extensions-dir=${home}/.local/share/ringside/desktop/extensions `));
  }
  assert.match(install, /--install-extension \S+\.vsix --force$/);
  assert.ok(open.endsWith(`--new-window ${home}`));
});

test("an old, remote or headless VS Code is left alone", () => {
  assert.equal(chooseEditor("1.99.0", {}).chosen, "null");
  assert.equal(chooseEditor("1.139.1", { DISPLAY: "" }).chosen, "null");
  for (const remote of ["VSCODE_IPC_HOOK_CLI", "WSL_DISTRO_NAME"]) {
    const { chosen } = chooseEditor("1.139.1", { [remote]: "x" });
    assert.equal(chosen, "null", remote);
  }
});
