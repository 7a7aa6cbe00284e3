// Owns: running the native command-line tool, which does the jobs that have no need of a session: quantize, bench, roofline.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { failure } from "../protocol/errors";
import { places } from "./places";

/** Passes the arguments on, and the tool's output through unless `capture` asks for it. The exit code is the tool's. */
export async function runNativeTool(
  arguments_: readonly string[],
  { capture = false }: { readonly capture?: boolean } = {},
): Promise<{ readonly exitCode: number; readonly output: string }> {
  if (!existsSync(places.nativeTool)) throw failure("engine-missing", places.nativeTool, "", "no such file");
  const child = spawn(places.nativeTool, [...arguments_], {
    stdio: ["inherit", capture ? "pipe" : "inherit", "inherit"],
  });
  const chunks: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => chunks.push(chunk));
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once("error", (cause) => {
      reject(failure("engine-missing", places.nativeTool, "", cause.message));
    });
    child.once("close", (code, signal) => {
      if (signal === null) resolve(code ?? 1);
      else reject(failure("engine-died", "", "", `signal ${signal}`));
    });
  });
  return { exitCode, output: Buffer.concat(chunks).toString("utf8") };
}
