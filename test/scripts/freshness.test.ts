// What is rebuilt and what is not: by content, and never half.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fingerprint, listFiles, whenStale } from "../../scripts/freshness.mjs";
import { at } from "../../scripts/paths.mjs";

// Inside build/, because inputs and outputs are named relative to the checkout.
const folder = `build/freshness-test-${String(process.pid)}`;
const stampName = path.basename(folder);
const write = (name: string, text: string): void => fs.writeFileSync(at(folder, name), text);

beforeEach(() => fs.mkdirSync(at(folder, "in"), { recursive: true }));
afterEach(() => {
  fs.rmSync(at(folder), { recursive: true });
  fs.rmSync(at("build", "stamps", stampName), { force: true });
});

test("files are listed in order, missing inputs left out", () => {
  write("in/b.ts", "b");
  write("in/a.cc", "a");
  assert.deepEqual(listFiles([`${folder}/in`, `${folder}/gone`]), [`${folder}/in/a.cc`, `${folder}/in/b.ts`]);
  assert.deepEqual(
    listFiles([`${folder}/in`], (file) => file.endsWith(".ts")),
    [`${folder}/in/b.ts`],
  );
});

test("a fingerprint follows content and names, not times", () => {
  write("in/a", "one");
  const first = fingerprint([`${folder}/in`]);
  fs.utimesSync(at(folder, "in/a"), 1, 1);
  assert.equal(fingerprint([`${folder}/in`]), first);
  write("in/a", "two");
  assert.notEqual(fingerprint([`${folder}/in`]), first);
  fs.rmSync(at(folder, "in/a"));
  write("in/b", "one");
  assert.notEqual(fingerprint([`${folder}/in`]), first);
});

test("a build runs again only when inputs, key or outputs changed", async () => {
  let builds = 0;
  const build = (key = ""): Promise<unknown> =>
    whenStale({ name: stampName, inputs: [`${folder}/in`], key, outputs: [`${folder}/out`] }, async () => {
      builds++;
      await fs.promises.writeFile(at(folder, "out"), "made");
    });
  write("in/a", "one");
  await build();
  assert.equal(await build(), "up to date");
  assert.equal(builds, 1);
  write("in/a", "two");
  await build();
  fs.rmSync(at(folder, "out"));
  await build();
  await build("another key");
  assert.equal(builds, 4);
});

test("a build that fails is tried again", async () => {
  write("in/a", "one");
  write("out", "old");
  const options = { name: stampName, inputs: [`${folder}/in`], outputs: [`${folder}/out`] };
  await assert.rejects(
    whenStale(options, () => Promise.reject(new Error("broken"))),
    /broken/,
  );
  let ran = false;
  await whenStale(options, () => {
    ran = true;
    return Promise.resolve();
  });
  assert.ok(ran);
});
