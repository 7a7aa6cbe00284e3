// Owns: a process that keeps snapshots in a folder which others use too: `node storeProcess.ts FOLDER LIMIT SEED PUTS`. Prints one
// line of JSON at its end. Must never know what the test makes of it.
import { FolderDisk } from "../../src/engine/snapshotDisk";
import { SnapshotStore } from "../../src/engine/snapshotStore";
import { fileOf, isSame, randomFrom, smallModel, tokensOf, wholeOf } from "./snapshotCases";

export interface StoreReport {
  readonly kept: number;
  readonly found: number;
  readonly wrong: number;
  readonly told: readonly string[];
}

async function work(folder: string, limitBytes: number, seed: number, puts: number): Promise<StoreReport> {
  const told: string[] = [];
  const onDisabled = (code: string): void => void told.push(code);
  const store = await SnapshotStore.open({ disk: new FolderDisk(folder), limitBytes, onDisabled });
  const random = randomFrom(seed);
  let [kept, found, wrong] = [0, 0, 0];
  for (let run = 0; run < puts; run += 1) {
    // Lines of two states each, some of them the same as another process's.
    const line = Math.floor(random() * 400);
    const own = String.fromCharCode(1_000 + 400 * seed + line);
    const tokens = tokensOf(String.fromCharCode(line), 640, [Math.floor(random() * 11) * 64, own]);
    for (const [from, to] of [
      [0, 320],
      [320, 640],
    ] as const) {
      const { name, content } = fileOf(smallModel, tokens.slice(0, to), from);
      if (await store.put(smallModel, name, content)) kept += 1;
      const whole = await store.get(smallModel, name.key);
      if (whole === null) continue;
      found += 1;
      if (!isSame(whole, wholeOf(smallModel, tokens.slice(0, to)))) wrong += 1;
    }
  }
  return { kept, found, wrong, told };
}

const [folder = "", limitBytes, seed, puts] = process.argv.slice(2);
void work(folder, Number(limitBytes), Number(seed), Number(puts)).then((report) =>
  process.stdout.write(`${JSON.stringify(report)}\n`),
);
