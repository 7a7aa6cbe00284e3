// Owns: `npm run bench:context`: which repositories are measured, one after the other, and which figures are compared with what
// was asked for. Must never invent a figure: what was not measured is printed as missing.
import fs from "node:fs";
import { spawn } from "node:child_process";
import path from "node:path";
import { parseArgs } from "node:util";
import { makeRepository, repositoryNames } from "./bench-repository.mjs";
import { at } from "./paths.mjs";
import { Explained, isMain, main, run, say } from "./process.mjs";
import { setUp } from "./setup.mjs";

const usage = `npm run bench:context [-- options]

  --only NAMES     repositories, with commas (default: ${repositoryNames.join(",")})
  --reps N         rounds of each, at least 3 for figures worth keeping (default 3)
  --under PROGRAM  what each round is started with, for one a lock that keeps others off the machine meanwhile
  --threads N      of the engine (default: the physical cores)
  --append         add the medians to docs/bench/<device>-context.csv
  --out DIR        where the rounds are kept (default build/bench); what is there of the same commit is not repeated

Ctrl-C ends the round under way; what it made is removed, and the rounds that were done stay.`;

/** Of which repository and test, which figure, and what was asked for. `than`: the figure is the ratio to that test's. */
const targets = [
  { repository: "30k-tokens", test: "warm", column: "reread_tokens", most: 63 },
  { repository: "30k-tokens", test: "cold", than: "restart", column: "ms", least: 20 },
  { repository: "10000-files", test: "first plan", column: "ms", most: 5_000 },
  { repository: "10000-files", test: "complete plan", column: "ms", most: 45_000 },
  ...["first plan", "complete plan", "plan after a save"].map((test) => ({
    ...{ repository: "10000-files", test, column: "blocked_ms", most: 16 },
  })),
  { repository: "10000-files", test: "plan after a save", column: "ms", most: 150 },
  ...["30k-tokens", "100k-tokens", "1m-tokens"].flatMap((repository) =>
    [10, 50, 90].flatMap((percent) => [
      { repository, test: `edit at ${percent} %`, column: "reread_tokens", beside: "edited_tokens", most: 200 },
      { repository, test: `rebase at ${percent} %`, column: "reread_tokens", beside: "behind_tokens", most: 4_096 },
    ]),
  ),
];

/** A program's standard output; what it says goes to ours. */
async function outputOf(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  // Ctrl-C reaches the child too, and the child says what becomes of it.
  const onInterrupt = () => undefined;
  process.on("SIGINT", onInterrupt);
  const chunks = [];
  child.stdout.on("data", (chunk) => chunks.push(chunk));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  process.off("SIGINT", onInterrupt);
  if (code !== 0) throw new Explained("The bench was ended.");
  return Buffer.concat(chunks);
}

async function measure(name, { reps, threads, append, out, under, commit }) {
  const repository = await makeRepository(name);
  const bench = [at("dist", "cli.js"), "bench", "--context", "--json"];
  const files = [];
  for (let round = 1; round <= reps; round++) {
    const file = path.join(out, `context-${name}-${commit}-${round}.json`);
    files.push(file);
    if (fs.existsSync(file)) continue;
    say(`${name}, round ${round} of ${reps}`);
    const threadArgs = threads === undefined ? [] : ["--threads", threads];
    const [command, ...args] = [
      ...under,
      process.execPath,
      ...bench,
      "--repo",
      repository,
      "--name",
      name,
      ...threadArgs,
    ];
    fs.writeFileSync(file, await outputOf(command, args));
  }
  const args = [...bench, "--rows", files.join(","), ...(append ? ["--append"] : [])];
  return JSON.parse(String(await outputOf(process.execPath, args)));
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
    const options = { only: text, reps: text, threads: text, under: text, append: flag, out: text, help: flag };
    const { values } = parseArgs({ options });
    if (values.help) return void say(usage);
    const names = values.only?.split(",") ?? repositoryNames;
    const unknown = names.filter((name) => !repositoryNames.includes(name));
    if (unknown.length > 0) throw new Explained(`There is no repository ${unknown.join(", ")}.\n${usage}`);
    await setUp(); // What is measured is today's code.
    const settings = {
      ...{ threads: values.threads, append: values.append, reps: Number(values.reps ?? 3) },
      out: path.resolve(values.out ?? at("build", "bench")),
      under: (values.under ?? "").split(" ").filter((word) => word !== ""),
      commit: (await run("git", ["rev-parse", "--short", "HEAD"])).trim(),
    };
    fs.mkdirSync(settings.out, { recursive: true });
    const rows = [];
    for (const name of names) rows.push(...(await measure(name, settings)));
    report(rows);
  });
}
