// Owns: `npm run bench:context`: which repositories are measured, one after the other, and which figures are compared with what
// was asked for. Must never invent a figure: what was not measured is printed as missing.
import fs from "node:fs";
import { spawn } from "node:child_process";
import path from "node:path";
import { parseArgs } from "node:util";
import { makeRepository, repositoryNames } from "./bench-repository.mjs";
import { at } from "./paths.mjs";
import { Explained, isMain, main, say } from "./process.mjs";
import { setUp } from "./setup.mjs";

const usage = `npm run bench:context [-- options]

  --only NAMES     repositories, with commas (default: ${repositoryNames.join(",")})
  --reps N         rounds of each, at least 3 for figures worth keeping (default 3)
  --threads N      of the engine (default: the physical cores)
  --append         add the medians to docs/bench/<device>-context.csv
  --out DIR        where the rows are kept too (default build/bench)

Ctrl-C ends the round under way; what it made is removed, and the rows of repositories that were done stay.`;

/** Of which repository and test, which figure, and what was asked for. `than`: the figure is the ratio to that test's. */
const targets = [
  { repository: "30k-tokens", test: "warm", column: "reread_tokens", most: 63 },
  { repository: "30k-tokens", test: "cold", than: "restart", column: "ms", least: 20 },
  { repository: "10000-files", test: "plan", column: "ms", most: 45_000 },
  { repository: "10000-files", test: "plan", column: "blocked_ms", most: 16 },
  { repository: "10000-files", test: "plan after a save", column: "ms", most: 150 },
  ...["30k-tokens", "100k-tokens", "1m-tokens"].flatMap((repository) =>
    [10, 50, 90].map((percent) => ({
      ...{ repository, test: `edit at ${percent} %`, column: "reread_tokens", beside: "edited_tokens", most: 200 },
    })),
  ),
];

async function measure(name, { reps, threads, append, out }) {
  const args = ["bench", "--context", "--json", "--repo", await makeRepository(name), "--name", name];
  args.push("--reps", String(reps), ...(threads === undefined ? [] : ["--threads", threads]));
  if (append) args.push("--append");
  const child = spawn(process.execPath, [at("dist", "cli.js"), ...args], { stdio: ["ignore", "pipe", "inherit"] });
  // Ctrl-C reaches the child too, and the child says what becomes of it.
  const onInterrupt = () => undefined;
  process.on("SIGINT", onInterrupt);
  const chunks = [];
  child.stdout.on("data", (chunk) => chunks.push(chunk));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  process.off("SIGINT", onInterrupt);
  if (code !== 0) throw new Explained(`${name} was not measured.`);
  const text = Buffer.concat(chunks).toString();
  fs.mkdirSync(out, { recursive: true });
  fs.writeFileSync(path.join(out, `context-${name}.json`), text);
  return JSON.parse(text);
}

function report(rows) {
  const value = (repository, test, column) =>
    rows.find((row) => row.repository === repository && row.test === test)?.[column];
  for (const { repository, test, than, beside, column, most, least } of targets) {
    const own = value(repository, test, column);
    const other = than === undefined ? 1 : value(repository, than, column);
    const allowed = beside === undefined ? 0 : value(repository, test, beside);
    const name = `${repository}, ${test}${than === undefined ? "" : ` to ${than}`}, ${column}`;
    if (own === undefined || other === undefined || allowed === undefined) {
      say(`missing  ${name}`);
      continue;
    }
    const figure = own / other;
    const limit = least ?? most + allowed;
    const isMet = least === undefined ? figure <= limit : figure >= limit;
    const asked = `${least === undefined ? "at most" : "at least"} ${limit}`;
    say(`${isMet ? "met    " : "NOT MET"}  ${name}: ${Number(figure.toPrecision(4))}, ${asked}`);
  }
}

if (isMain(import.meta)) {
  void main(async () => {
    const text = { type: "string" };
    const flag = { type: "boolean" };
    const options = { only: text, reps: text, threads: text, append: flag, out: text, help: flag };
    const { values } = parseArgs({ options });
    if (values.help) return void say(usage);
    const names = values.only?.split(",") ?? repositoryNames;
    const unknown = names.filter((name) => !repositoryNames.includes(name));
    if (unknown.length > 0) throw new Explained(`There is no repository ${unknown.join(", ")}.\n${usage}`);
    await setUp(); // What is measured is today's code.
    const settings = {
      ...values,
      reps: Number(values.reps ?? 3),
      out: path.resolve(values.out ?? at("build", "bench")),
    };
    const rows = [];
    for (const name of names) rows.push(...(await measure(name, settings)));
    report(rows);
  });
}
