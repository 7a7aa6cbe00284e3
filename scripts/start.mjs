// Owns: `npm start -- [folder]`: from a fresh clone to a VS Code with Ringside in it, open on a folder. Always with a profile
// of its own. Must never use the user's installation, nor open the workbench without a token or without workspace trust.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { packageVsix } from "./package.mjs";
import { at, profilesFolder, vsixFile } from "./paths.mjs";
import { Explained, findProgram, isMain, main, run, say, step } from "./process.mjs";
import { setUp } from "./setup.mjs";
import { installVsix, profileIn, provisionServer, runsHere, startServer } from "./vscode-server.mjs";

/** Written into a new profile only; what the user changes later stays. */
const firstSettings = {
  "workbench.startupEditor": "none",
  "workbench.secondarySideBar.defaultVisibility": "visible",
  "telemetry.telemetryLevel": "off",
  "chat.disableAIFeatures": true,
  "extensions.ignoreRecommendations": true,
};

/** @param {string} [argument] */
export function folderToOpen(argument) {
  const folder = path.resolve(process.env.INIT_CWD ?? process.cwd(), argument ?? at());
  const stat = fs.statSync(folder, { throwIfNoEntry: false });
  if (!stat) throw new Explained(`There is no folder ${folder}.`);
  if (!stat.isDirectory()) throw new Explained(`${folder} is not a folder.`);
  return fs.realpathSync(folder);
}

/** Tells the extension to show its view at once: whoever types `npm start` wants to see it. */
const showPanel = { RINGSIDE_SHOW_PANEL: "1" };

const hasDisplay = () => process.platform !== "linux" || Boolean(process.env.DISPLAY || process.env.WAYLAND_DISPLAY);

/** Whether version "1.139.1" is at least the floor "^1.127.0". */
export function meetsFloor(version, floor) {
  const numbers = (text) => (/(\d+)\.(\d+)\.(\d+)/.exec(text) ?? [0, 0, 0, 0]).slice(1).map(Number);
  const [found, wanted] = [numbers(version), numbers(floor)];
  const differs = found.findIndex((part, index) => part !== wanted[index]);
  return differs === -1 || found[differs] > wanted[differs];
}

/** A desktop VS Code that is new enough and whose profile we may choose; null when there is none. */
export async function desktopCode() {
  // In a remote terminal and under WSL `code` talks to an editor that is already open and ignores our profile folders.
  if (process.env.VSCODE_IPC_HOOK_CLI !== undefined || process.env.WSL_DISTRO_NAME !== undefined) return null;
  const program = findProgram(process.platform === "win32" ? "code.cmd" : "code");
  if (program === null || !hasDisplay()) return null;
  const version = await run(program, ["--version"]).catch(() => "");
  const floor = JSON.parse(fs.readFileSync(at("package.json"), "utf8")).engines.vscode;
  return meetsFloor(version.split("\n")[0], floor) ? program : null;
}

export async function openDesktop(program, folder) {
  const profile = profileIn(path.join(profilesFolder, "desktop"), firstSettings);
  const args = [`--user-data-dir=${profile.data}`, `--extensions-dir=${profile.extensions}`];
  if (process.getuid?.() === 0) args.push("--no-sandbox"); // Electron refuses to run as root with its sandbox.
  await step("Ringside into VS Code", () =>
    run(program, [...args, "--install-extension", vsixFile, "--force"]).then(() => undefined),
  );
  await run(program, [...args, "--new-window", folder], { env: { ...process.env, ...showPanel } });
  say(`VS Code is open on ${folder}.`);
}

function openBrowser(address) {
  const opener = hasDisplay() ? findProgram("xdg-open") : null;
  if (opener === null) return;
  const child = spawn(opener, [address], { detached: true, stdio: "ignore" });
  child.on("error", () => undefined); // The address stands in the terminal anyway.
  child.unref();
}

async function openWorkbench(folder) {
  await provisionServer();
  const home = path.join(profilesFolder, "browser");
  const profile = profileIn(home, firstSettings);
  await step("Ringside into VS Code", () => installVsix(profile, vsixFile));
  const token = randomBytes(24).toString("hex");
  const tokenFile = path.join(home, `token-${process.pid}`); // A file, because arguments are visible to every user.
  fs.writeFileSync(tokenFile, token, { mode: 0o600 });
  const removeToken = () => fs.rmSync(tokenFile, { force: true });
  process.once("exit", removeToken);
  const server = await startServer({ profile, flags: [`--connection-token-file=${tokenFile}`], env: showPanel });
  const address = `${server.url}/?tkn=${token}&folder=${encodeURIComponent(folder)}`;
  say(`\nRingside is open on ${folder} at\n\n  ${address}\n\nCtrl+C stops it.`);
  openBrowser(address);
  const interrupted = new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => resolve(true));
  });
  const wasInterrupted = await Promise.race([interrupted, server.ended.then(() => false)]);
  await server.stop();
  if (!wasInterrupted) throw new Explained(`The VS Code server ended.\n${server.output()}`);
}

if (isMain(import.meta)) {
  void main(async () => {
    const folder = folderToOpen(process.argv[2]);
    await setUp();
    await step("VSIX", packageVsix);
    const program = await desktopCode();
    if (program !== null) await openDesktop(program, folder);
    else if (runsHere()) await openWorkbench(folder);
    else
      throw new Explained(
        "Please put VS Code 1.127 or newer on the PATH as `code`: the browser workbench needs Linux on x64.",
      );
  });
}
