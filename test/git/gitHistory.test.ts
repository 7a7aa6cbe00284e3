// When files last changed, asked of real git: what is told, where nothing is told, and that no program of the repository's runs.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import * as path from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import * as fc from "fast-check";
import { GitHistory, historyOf } from "../../src/git/gitHistory";
import { folderWith, put } from "../context/folders";

const identity = { GIT_AUTHOR_NAME: "a", GIT_AUTHOR_EMAIL: "a@b", GIT_COMMITTER_NAME: "a", GIT_COMMITTER_EMAIL: "a@b" };

function git(folder: string, seconds: number, ...command: string[]): string {
  const at = `@${String(seconds)} +0000`;
  const env = { ...process.env, ...identity, GIT_AUTHOR_DATE: at, GIT_COMMITTER_DATE: at };
  return execFileSync("git", ["-C", folder, ...command], { env, encoding: "utf8" });
}

/** Three commits, at 1,000, 2,000 and 3,000 seconds; the last one changes sub/b.ts alone. */
function repository(t: TestContext): string {
  const folder = folderWith(t, { "a.ts": "1", "sub/b.ts": "1", "sub/ü.ts": "1" });
  git(folder, 0, "init", "-q");
  for (const [seconds, file] of [
    [1_000, "a.ts"],
    [2_000, "sub/ü.ts"],
    [3_000, "sub/b.ts"],
  ] as const) {
    put(folder, file, String(seconds));
    git(folder, seconds, "add", seconds === 1_000 ? "." : file);
    git(folder, seconds, "commit", "-q", "-m", "m");
  }
  put(folder, "new.ts", "not committed");
  return folder;
}

test("each file has the time of the last commit that changed it; a part of a repository knows its own files", async (t) => {
  const folder = repository(t);
  const history = await new GitHistory(folder).read();
  assert.deepEqual(Object.fromEntries(history?.changedAt ?? []), {
    "a.ts": 1_000,
    "sub/ü.ts": 2_000,
    "sub/b.ts": 3_000,
  });
  assert.equal(history?.isWhole, true);
  const part = await new GitHistory(path.join(folder, "sub")).read();
  assert.deepEqual(Object.fromEntries(part?.changedAt ?? []), { "ü.ts": 2_000, "b.ts": 3_000 });
});

test("the same until the next commit, and then anew", async (t) => {
  const folder = repository(t);
  const reader = new GitHistory(folder);
  const first = await reader.read();
  assert.equal(await reader.read(), first);
  git(folder, 4_000, "add", ".");
  git(folder, 4_000, "commit", "-q", "-m", "m");
  const second = await reader.read();
  assert.notEqual(second?.id, first?.id);
  assert.equal(second?.changedAt.get("new.ts"), 4_000);
});

test("only so many commits are read, and that is told", async (t) => {
  const limits = { commits: 1, bytes: 1 << 20, milliseconds: 10_000 };
  const history = await new GitHistory(repository(t), limits).read();
  assert.deepEqual([...(history?.changedAt.keys() ?? [])], ["sub/b.ts"]);
  assert.equal(history?.isWhole, false);
});

/** While `work` runs, another program stands before git, which ends long after every limit. */
async function withSlowGit(t: TestContext, work: () => Promise<void>): Promise<void> {
  const folder = folderWith(t, { git: "#!/bin/sh\nexec sleep 30\n" });
  chmodSync(path.join(folder, "git"), 0o755);
  const before = process.env["PATH"];
  process.env["PATH"] = `${folder}${path.delimiter}${before ?? ""}`;
  try {
    await work();
  } finally {
    process.env["PATH"] = before;
  }
}

test("no repository, no commit, too much to read, too slow, stopped: there is no history", async (t) => {
  const plain = folderWith(t, { "a.ts": "1" });
  // A folder of this machine above it may be a repository.
  git(plain, 0, "init", "-q");
  assert.equal(await new GitHistory(plain).read(), null);
  assert.equal(await new GitHistory(path.join(plain, "not-there")).read(), null);
  const folder = repository(t);
  assert.equal(await new GitHistory(folder, { commits: 9, bytes: 60, milliseconds: 10_000 }).read(), null);
  await withSlowGit(t, async () => {
    assert.equal(await new GitHistory(folder, { commits: 9, bytes: 1 << 20, milliseconds: 200 }).read(), null);
  });
  const stop = new AbortController();
  stop.abort();
  assert.equal(await new GitHistory(folder).read(stop.signal), null);
});

test("no program that the repository's configuration names is run", async (t) => {
  const folder = repository(t);
  const proof = path.join(folder, "ran");
  const program = path.join(folder, "program.sh");
  writeFileSync(program, `#!/bin/sh\ntouch '${proof}'\ncat\n`, { mode: 0o755 });
  const hooks = path.join(folder, "hooks");
  mkdirSync(hooks);
  for (const hook of ["post-index-change", "fsmonitor-watchman"]) {
    writeFileSync(path.join(hooks, hook), `#!/bin/sh\ntouch '${proof}'\n`, { mode: 0o755 });
  }
  for (const [name, value] of [
    ["core.fsmonitor", program],
    ["core.hooksPath", hooks],
    ["core.pager", program],
    ["pager.log", program],
    ["diff.external", program],
    ["diff.x.textconv", program],
    ["diff.x.command", program],
    ["filter.x.clean", program],
    ["filter.x.smudge", program],
    ["gpg.program", program],
    ["log.showSignature", "true"],
    ["core.sshCommand", program],
    ["alias.log", `!${program}`],
    ["core.alternateRefsCommand", program],
  ] as const) {
    git(folder, 0, "config", name, value);
  }
  put(folder, ".git/info/attributes", "* diff=x filter=x\n");
  const history = await new GitHistory(folder).read();
  assert.equal(history?.changedAt.get("a.ts"), 1_000);
  assert.equal(existsSync(proof), false);
});

test("a variable of the caller's cannot lead to another repository", async (t) => {
  const [folder, other] = [repository(t), repository(t)];
  git(other, 9_000, "add", ".");
  git(other, 9_000, "commit", "-q", "-m", "m");
  process.env["GIT_DIR"] = path.join(other, ".git");
  t.after(() => delete process.env["GIT_DIR"]);
  assert.equal((await new GitHistory(folder).read())?.changedAt.has("new.ts"), false);
});

test("property: whatever git says gives paths with times, and nothing else", () => {
  const piece = fc.oneof(
    fc.string(),
    fc.constantFrom("\x01", "\x0112", "\n", "\0", "\n\x01x", "a/b", "\x01999999999999999"),
  );
  fc.assert(
    fc.property(fc.array(piece), (pieces) => {
      const { changedAt } = historyOf("head", pieces.join("\0"), 10);
      for (const [name, seconds] of changedAt) assert.ok(name !== "" && Number.isSafeInteger(seconds) && seconds >= 0);
    }),
  );
});
