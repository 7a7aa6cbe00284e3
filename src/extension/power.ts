// Owns: whether this machine runs on its battery, as Linux tells it. Elsewhere that is not known, and not assumed.
import { readdir, readFile } from "node:fs/promises";
import * as path from "node:path";

const powerSupplies = "/sys/class/power_supply";

/** A battery that is being used up, of the machine itself, with no other supply on. */
export async function runsOnBattery(folder = powerSupplies): Promise<boolean> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch {
    return false;
  }
  const supplies = await Promise.all(names.map((name) => supplyIn(path.join(folder, name))));
  if (supplies.some(({ type, online }) => type !== "Battery" && online === "1")) return false;
  // A mouse has a battery as well.
  return supplies.some(
    ({ type, scope, status }) => type === "Battery" && scope !== "Device" && status === "Discharging",
  );
}

interface Supply {
  readonly type: string;
  readonly online: string;
  readonly scope: string;
  readonly status: string;
}

async function supplyIn(folder: string): Promise<Supply> {
  const fact = (name: string): Promise<string> =>
    readFile(path.join(folder, name), "utf8").then(
      (text) => text.trim(),
      () => "",
    );
  const [type, online, scope, status] = await Promise.all([
    fact("type"),
    fact("online"),
    fact("scope"),
    fact("status"),
  ]);
  return { type, online, scope, status };
}
