// Owns: `npm run ask -- --repo DIR "question"`: set-up, then the command line's own `ask`. Must never read the arguments.
import { spawnSync } from "node:child_process";
import { at } from "./paths.mjs";
import { isMain, main } from "./process.mjs";
import { setUp } from "./setup.mjs";

if (isMain(import.meta)) {
  void main(async () => {
    await setUp();
    // npm changes to the checkout; relative paths are meant from where the user stands.
    const cwd = process.env.INIT_CWD ?? process.cwd();
    const result = spawnSync(process.execPath, [at("dist", "cli.js"), "ask", ...process.argv.slice(2)], {
      cwd,
      stdio: "inherit",
    });
    process.exitCode = result.status ?? 1;
  });
}
