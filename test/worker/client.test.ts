// The worker thread: its jobs, its deaths and its limits. A stand-in thread does what no real job does on demand.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import type { TestContext } from "node:test";
import { factsFromWorker } from "../../src/context/factSources";
import { RepositoryContext } from "../../src/context/repositoryContext";
import { secretsOnWorker } from "../../src/context/secrets";
import { WorkerSyntaxReader } from "../../src/context/syntax/syntaxReader";
import { WorkerDied } from "../../src/context/worker";
import type { ContextWorker } from "../../src/context/worker";
import { RingsideFailure } from "../../src/protocol/errors";
import { createContextWorker } from "../../src/worker/client";
import type { WorkerOptions } from "../../src/worker/client";
import { MemoryRepository } from "../context/folders";

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-worker-"));
after(() => fs.rmSync(scratch, { recursive: true }));

const realThread = path.join(__dirname, "..", "..", "dist", "contextWorker.js");

/** Does as the text of its job says, and gives the text back as the outline. */
const standIn = path.join(scratch, "thread.js");
fs.writeFileSync(
  standIn,
  `const { parentPort } = require("node:worker_threads");
  let done = 0;
  parentPort.postMessage("started");
  parentPort.on("message", ({ id, job, input }) => {
    if (job === "syntax" && input.text === "throw") throw new Error("out of bounds");
    if (job === "syntax" && input.text === "exit") process.exit(3);
    if (job === "syntax" && input.text === "hang") for (;;);
    if (input.text === "always throw") throw new Error("out of bounds");
    if (input.text === "memory") { const all = []; for (;;) all.push(new Array(1e6).fill(all.length)); }
    parentPort.postMessage({ id, result: { definitions: [], references: String(++done), outline: input.text, parser: "lines" } });
  });`,
);

function started(context: TestContext, options: Partial<WorkerOptions> = {}): { worker: ContextWorker; log: string[] } {
  const log: string[] = [];
  const worker = createContextWorker({ script: standIn, log: (line) => log.push(line), ...options });
  context.after(() => worker.dispose());
  return { worker, log };
}

const read = async (worker: ContextWorker, text: string, signal?: AbortSignal): Promise<string> =>
  (await worker.run("syntax", { path: "a.ts", text }, signal)).outline;

const isCancelled = (error: unknown): boolean => error instanceof RingsideFailure && error.error.kind === "cancelled";

test("the bundled thread parses with each of its grammars", async (context) => {
  const { worker } = started(context, { script: realThread });
  const reader = new WorkerSyntaxReader(worker);
  const typescript = await reader.read("a.ts", "export function add(a: number): number {\n  return plus(a);\n}\n");
  assert.equal(typescript.parser, "tree-sitter");
  assert.equal(typescript.outline, "export function add(a: number): number {\n  …");
  assert.deepEqual(typescript.definitions, [{ name: "add", line: 1, kind: "function", isTopLevel: true }]);
  assert.deepEqual([...typescript.references], [["plus", 1]]);
  for (const extension of ["tsx", "js", "py", "go", "rs", "c", "cpp", "java", "cs", "rb", "php"]) {
    assert.equal((await reader.read(`a.${extension}`, "x")).parser, "tree-sitter", extension);
  }
  assert.equal((await reader.read("a.lua", "function f()\nend")).parser, "lines");
});

test("jobs are answered each with its own result, however many wait", async (context) => {
  const { worker } = started(context);
  const texts = Array.from({ length: 500 }, (_, index) => `text ${String(index)}`);
  assert.deepEqual(await Promise.all(texts.map((text) => read(worker, text))), texts);
});

for (const how of ["throw", "exit", "hang", "memory"]) {
  test(`a thread that dies takes one job with it: ${how}`, async (context) => {
    const { worker, log } = started(context, { jobMs: how === "hang" ? 4_000 : 20_000, heapMb: 64 });
    const fine = Array.from({ length: 20 }, (_, index) => `text ${String(index)}`);
    const before = fine.map((text) => read(worker, text));
    const fatal = read(worker, how);
    const behind = fine.map((text) => read(worker, text));
    await assert.rejects(fatal, WorkerDied);
    assert.deepEqual(await Promise.all([...before, ...behind]), [...fine, ...fine]);
    assert.equal(log.length, 1, log.join("\n"));
    assert.match(log[0] ?? "", /^context worker: .+ in syntax of a\.ts$/);
  });
}

test("a file that ends the thread is read by its lines; one that ends it again has no syntax", async (context) => {
  const { worker, log } = started(context);
  const reader = new WorkerSyntaxReader(worker);
  assert.equal((await reader.read("a.ts", "throw")).outline, "throw");
  assert.equal((await reader.read("a.ts", "always throw")).outline, "");
  assert.equal((await reader.read("a.ts", "fine")).outline, "fine");
  assert.equal(log.length, 3);
});

test("cancelling gives the caller back at once and holds nobody up", async (context) => {
  const { worker, log } = started(context, { jobMs: 5_000 });
  const abort = new AbortController();
  const hanging = read(worker, "hang", abort.signal);
  const waiting = Array.from({ length: 30 }, () => read(worker, "never done", abort.signal));
  const other = read(worker, "other");
  abort.abort();
  for (const job of [hanging, ...waiting]) await assert.rejects(job, isCancelled);
  assert.deepEqual(log, [], "none of them waited until the hanging thread was ended");
  assert.equal(await other, "other");
  assert.equal(log.length, 1, log.join("\n"));
  await assert.rejects(read(worker, "late", abort.signal), isCancelled);
});

test("however many jobs hang on one signal, it has one listener, and none when they are done", async (context) => {
  const { worker } = started(context);
  const { signal } = new AbortController();
  const jobs = Array.from({ length: 50 }, () => read(worker, "text", signal));
  assert.equal(getEventListeners(signal, "abort").length, 1);
  await Promise.all(jobs);
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("an idle thread ends, and the next job starts another", async (context) => {
  const { worker } = started(context, { idleMs: 200 });
  /** How many jobs the thread has done. */
  const done = async (): Promise<string> => (await worker.run("syntax", { path: "a.ts", text: "" })).references;
  assert.deepEqual(await Promise.all([done(), done()]), ["1", "2"]);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  assert.equal(await done(), "1");
});

test("after its end a worker refuses, and what it had is cancelled", async (context) => {
  const { worker } = started(context);
  const running = read(worker, "hang");
  const waiting = read(worker, "text");
  worker.dispose();
  await assert.rejects(running, isCancelled);
  await assert.rejects(waiting, isCancelled);
  await assert.rejects(read(worker, "text"), isCancelled);
});

for (const [how, thread, told] of [
  ["is not there", undefined, /Cannot find module/],
  ["throws as it is loaded", 'throw new Error("no such\\nthing");', /no such/],
  ["ends as it is loaded", "process.exit(1);", /ended/],
] as const) {
  test(`a thread that ${how} fails every job with an error that says so, and is tried again`, async (context) => {
    const script = path.join(scratch, `${how.replaceAll(" ", "-")}.js`);
    if (thread !== undefined) fs.writeFileSync(script, thread);
    const { worker, log } = started(context, { script });
    const jobs: Promise<unknown>[] = Array.from({ length: 30 }, () => read(worker, "text"));
    jobs.push(new WorkerSyntaxReader(worker).read("a.ts", "text"), secretsOnWorker(worker).hasSecret("a.ts", "text"));
    for (const job of jobs) {
      await assert.rejects(job, ({ error }: RingsideFailure) => {
        assert.deepEqual([error.kind, error.subject], ["worker-missing", script]);
        return told.test(error.actual);
      });
    }
    assert.equal(log.length, 1, log.join("\n"));
    fs.copyFileSync(standIn, script);
    assert.equal(await read(worker, "text"), "text");
  });
}

test("without its thread a repository is not empty but refused, with a name for what is missing", async (context) => {
  const { worker } = started(context, { script: path.join(scratch, "gone.js") });
  const repository = new RepositoryContext(new MemoryRepository({ "a.ts": "const a = 1;" }), factsFromWorker(worker));
  const request = { budgetTokens: 1_000, availableTokens: 1_000, question: "", scope: [], pinned: [] };
  const count = (texts: readonly string[]): Promise<number[]> => Promise.resolve(texts.map((text) => text.length));
  for (const ranking of ["first", "complete"] as const) {
    await assert.rejects(
      repository.plan(await repository.scan(), { ...request, model: "m", count, ranking }),
      ({ error }: RingsideFailure) => error.kind === "worker-missing",
    );
  }
});
