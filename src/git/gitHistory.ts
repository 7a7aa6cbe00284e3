// Owns: when the files of a folder last changed, as git tells it. Starts git and nothing else, and lets it run no program, write no
// file and open no connection, whatever the repository's own configuration says. Must never be asked of a folder that is not trusted.
import { spawn } from "node:child_process";
import * as path from "node:path";
import type { ChangeHistory } from "../context/repoReader";

export interface GitLimits {
  readonly commits: number;
  readonly bytes: number;
  readonly milliseconds: number;
}

const defaultLimits: GitLimits = { commits: 2_000, bytes: 32 * 1024 * 1024, milliseconds: 10_000 };

/** What git must not do by itself: wait for a lock, ask, page, fetch what a partial clone lacks, run a file watcher or a filter. */
const settings = ["--no-pager", "--no-optional-locks", "--literal-pathspecs"];
const configuration = [
  "core.fsmonitor=false",
  "core.hooksPath=/dev/null",
  "log.showSignature=false",
  "log.mailmap=false",
];
const environment = {
  GIT_OPTIONAL_LOCKS: "0",
  GIT_TERMINAL_PROMPT: "0",
  GIT_NO_LAZY_FETCH: "1",
  GIT_ALLOW_PROTOCOL: "none",
  GIT_PAGER: "cat",
  LC_ALL: "C",
};
/** Before the time of a commit: no path that is read begins so. */
const commitMark = "\x01";
const logOptions = [
  "log",
  "--name-only",
  "-z",
  "--format=%x01%ct",
  "--no-renames",
  "--no-ext-diff",
  "--no-textconv",
  "--no-color",
  "--no-notes",
  "--diff-merges=first-parent",
  "--relative",
];

/** Answers from memory while the folder's last commit stays the same. */
export class GitHistory {
  #last: { readonly head: string; readonly history: ChangeHistory } | undefined;

  constructor(
    private readonly folder: string,
    private readonly limits: GitLimits = defaultLimits,
  ) {}

  /** null: no git, no repository, no commit yet, or it took too long. */
  async read(signal?: AbortSignal): Promise<ChangeHistory | null> {
    const head = (await this.#git(["rev-parse", "--verify", "--quiet", "HEAD"], signal))?.trim();
    if (head === undefined || !/^[0-9a-f]{40,64}$/.test(head)) return null;
    if (this.#last?.head === head) return this.#last.history;
    const log = await this.#git([...logOptions, `--max-count=${this.limits.commits}`, head, "--", "."], signal);
    if (log === undefined) return null;
    const history = historyOf(head, log, this.limits.commits);
    this.#last = { head, history };
    return history;
  }

  /** undefined: git failed, said more than is read, or took too long. */
  async #git(command: readonly string[], signal: AbortSignal | undefined): Promise<string | undefined> {
    const options = configuration.flatMap((setting) => ["-c", setting]);
    return new Promise((resolve) => {
      const child = spawn("git", [...settings, ...options, "-C", this.folder, ...command], {
        // Not the folder itself: on Windows a program is looked for where it is started.
        cwd: path.dirname(process.execPath),
        env: { ...withoutGit(process.env), ...environment },
        stdio: ["ignore", "pipe", "ignore"],
        timeout: this.limits.milliseconds,
        killSignal: "SIGKILL",
        windowsHide: true,
        ...(signal === undefined ? {} : { signal }),
      });
      const chunks: Buffer[] = [];
      let bytes = 0;
      child.stdout.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= this.limits.bytes) chunks.push(chunk);
        else child.kill("SIGKILL");
      });
      child.on("error", () => resolve(undefined));
      child.on("close", (code) => {
        const isWhole = code === 0 && bytes <= this.limits.bytes;
        resolve(isWhole ? Buffer.concat(chunks).toString("utf8") : undefined);
      });
    });
  }
}

/** Variables such as GIT_DIR would lead to another repository than the folder's. */
function withoutGit(variables: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(variables).filter(([name]) => !name.startsWith("GIT_")));
}

/** Newest first: the time of each commit behind its mark, then its paths, between NULs. What is not understood is passed over. */
export function historyOf(head: string, log: string, commitLimit: number): ChangeHistory {
  const changedAt = new Map<string, number>();
  let commits = 0;
  let seconds = 0;
  for (const written of log.split("\0")) {
    const part = written.replace(/^\n/, "");
    const time = part.startsWith(commitMark) ? part.slice(commitMark.length) : "";
    if (/^\d{1,12}$/.test(time)) {
      commits++;
      seconds = Number(time);
    } else if (part !== "" && commits > 0 && !changedAt.has(part)) {
      changedAt.set(part, seconds);
    }
  }
  return { id: `git ${head}`, changedAt, isWhole: commits < commitLimit };
}
