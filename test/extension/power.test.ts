// Whether the machine runs on its battery, from a folder as Linux shows it; what is not there or not understood is no battery.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import * as fc from "fast-check";
import { runsOnBattery } from "../../src/extension/power";

async function runsOn(supplies: readonly Readonly<Record<string, string>>[]): Promise<boolean> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "ringside-power-"));
  try {
    for (const [index, facts] of supplies.entries()) {
      const supply = path.join(folder, `supply${String(index)}`);
      fs.mkdirSync(supply);
      for (const [name, value] of Object.entries(facts)) fs.writeFileSync(path.join(supply, name), `${value}\n`);
    }
    return await runsOnBattery(folder);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

const battery = { type: "Battery", status: "Discharging", scope: "System" };
const mains = (online: string): Record<string, string> => ({ type: "Mains", online });

test("a battery in use is one, a charging one or a mouse's is not", async () => {
  assert.equal(await runsOn([battery, mains("0")]), true);
  assert.equal(await runsOn([{ type: "Battery", status: "Discharging" }]), true);
  assert.equal(await runsOn([battery, mains("1")]), false);
  assert.equal(await runsOn([{ ...battery, status: "Charging" }, mains("1")]), false);
  assert.equal(await runsOn([{ ...battery, status: "Full" }]), false);
  assert.equal(await runsOn([{ ...battery, scope: "Device" }]), false);
});

test("a machine that tells nothing is not on its battery", async () => {
  assert.equal(await runsOn([]), false);
  assert.equal(await runsOn([{}]), false);
  assert.equal(await runsOnBattery("/nowhere/power_supply"), false);
});

test("property: whatever the files hold, there is an answer", async () => {
  const fact = fc.oneof(fc.string(), fc.constantFrom("Battery", "Mains", "1", "0", "Discharging", "Device"));
  const supply = fc.record({ type: fact, online: fact, status: fact, scope: fact }, { requiredKeys: [] });
  await fc.assert(
    fc.asyncProperty(fc.array(supply, { maxLength: 3 }), async (supplies) => {
      assert.equal(typeof (await runsOn(supplies)), "boolean");
    }),
    { numRuns: 50 },
  );
});
