// Owns: the worker thread: jobs come in, are done one after the other, and their results go out in the same order. Must never
// catch what a job throws: after a fault in a grammar's code nothing of its memory can be trusted, and a new thread is cheap.
import { readFile } from "node:fs/promises";
import * as path from "node:path";
import { parentPort } from "node:worker_threads";
import { contextJobs } from "../context/jobs";
import type { JobReply, JobRequest, Started } from "./client";

const grammars = path.join(__dirname, "grammars");
const jobs = contextJobs((file) => readFile(path.join(grammars, file)));

parentPort?.postMessage("started" satisfies Started);
let last: Promise<void> = Promise.resolve();

parentPort?.on("message", ({ id, job, input }: JobRequest) => {
  last = last.then(async () => {
    const result = await jobs[job](input);
    parentPort?.postMessage({ id, result } satisfies JobReply);
  });
});
