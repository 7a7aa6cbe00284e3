// Secrets in the text of files: what is found, what is not, and that no text makes the search throw or go on without end.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { secretsHere } from "../../src/context/secretRules";
import { secretsOnWorker } from "../../src/context/secrets";
import { WorkerDied } from "../../src/context/worker";

// Put together here, so that no tool takes this file for a leak.
const joined = (...parts: string[]): string => parts.join("");
const letters = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xL";

const table: readonly (readonly [path: string, text: string, isSecret: boolean])[] = [
  ["a.ts", `const token = "${joined("ghp_", letters, "AbC4")}";`, true],
  ["a.py", `SLACK = "${joined("xoxb-", "123456789012-1234567890123-", letters.slice(0, 24))}"`, true],
  ["config.yml", `url: https://${joined("deploy:", "Xk29vLq8Zt")}@git.intranet.net/app.git`, true],
  [
    "a.ts",
    `const key = "${joined("sk-ant-", "api03-", letters, letters, letters.slice(0, 29), "-", "AbCdEfGhAA")}";`,
    true,
  ],
  ["a.ts", 'const url = "https://user:pass@beacon.test/collect";', false],
  ["a.ts", 'const url = "https://admin:Xk29vLq8Zt@api.example.com/collect";', false],
  ["a.ts", 'const url = "http://deploy:Xk29vLq8Zt@service.localhost/";', false],
  ["a.ts", "const token = process.env.GITHUB_TOKEN;", false],
  ["README.md", "Set `GITHUB_TOKEN=ghp_...` first.", false],
  ["a.ts", "", false],
];

for (const [path, text, isSecret] of table) {
  test(`${isSecret ? "a secret" : "no secret"} in ${path}: ${text.slice(0, 24)}`, async () => {
    assert.equal(await secretsHere.hasSecret(path, text), isSecret);
  });
}

test("no comment of the file itself turns the search off", async () => {
  const text = `// secretlint-disable\nconst token = "${joined("ghp_", letters, "AbC4")}"; // secretlint-disable-line\n`;
  assert.equal(await secretsHere.hasSecret("a.ts", text), true);
});

test("property: any text has an answer", async () => {
  const text = fc.oneof(fc.string({ maxLength: 400 }), fc.string({ unit: "binary", maxLength: 400 }));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("a.ts", "package.json", ".npmrc", "x.p12", ""), text, async (path, content) => {
      assert.equal(typeof (await secretsHere.hasSecret(path, content)), "boolean");
    }),
    { numRuns: 300 },
  );
});

test("a quarter of a megabyte made to take long takes no time", async () => {
  const size = 256 * 1024;
  for (const unit of [
    "a",
    "https://",
    "-",
    "AKIA",
    "aws_secret_access_key=",
    "https://a:",
    "A1b/+",
    "-----BEGIN ",
    "\t ",
    "ghp_",
  ]) {
    const startedAt = process.cpuUsage();
    await secretsHere.hasSecret("package.json", unit.repeat(size / unit.length));
    const { user, system } = process.cpuUsage(startedAt);
    assert.ok(user + system < 5_000_000, `${unit}: ${((user + system) / 1_000).toFixed(0)} ms of processor time`);
  }
});

test("a text on which the worker dies counts as a secret; a stop is a stop", async () => {
  const dying = secretsOnWorker({ run: () => Promise.reject(new WorkerDied("hung")), dispose: () => undefined });
  assert.equal(await dying.hasSecret("a.ts", "x"), true);
  const stopped = secretsOnWorker({ run: () => Promise.reject(new Error("cancelled")), dispose: () => undefined });
  await assert.rejects(stopped.hasSecret("a.ts", "x"), /cancelled/);
});
