// Options of the command line: what is read, and what is wrong usage.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  choiceOption,
  HelpRequested,
  integerOption,
  loadRequest,
  modelOptions,
  numberOption,
  parseCommand,
  UsageError,
} from "../../src/cli/arguments";

const command = { help: "the help", options: modelOptions, positionals: [1, 2] } as const;

test("options and positionals are read", () => {
  const { values, positionals } = parseCommand(["--threads", "2", "one", "--json", "two"], command);
  assert.equal(values.threads, "2");
  assert.equal(values.json, true);
  assert.deepEqual(positionals, ["one", "two"]);
  assert.throws(() => parseCommand(["--help"], command), HelpRequested);
});

test("unknown options, missing values and a wrong number of positionals are wrong usage", () => {
  const wrong = [["--nonsense", "x"], ["x", "--threads"], ["x", "--json=1"], [], ["a", "b", "c"], ["-z", "a"]];
  for (const argv of wrong) assert.throws(() => parseCommand(argv, command), UsageError, argv.join(" "));
});

test("numbers and choices are checked against their limits", () => {
  assert.equal(integerOption("12", "--n", [1, 20], 5), 12);
  assert.equal(integerOption(undefined, "--n", [1, 20], 5), 5);
  for (const value of ["0", "21", "1.5", "x", "", "1e1", "0x10", "99999999999999999999", " 3"]) {
    assert.throws(() => integerOption(value, "--n", [1, 20], 5), UsageError, value);
  }
  assert.equal(numberOption("0.7", "--t", [0, 2], 0), 0.7);
  for (const value of ["-0.1", "2.1", "NaN", "Infinity", "", " "]) {
    assert.throws(() => numberOption(value, "--t", [0, 2], 0), UsageError, value);
  }
  assert.equal(choiceOption("low", "--e", ["off", "low"], "off"), "low");
  assert.throws(() => choiceOption("LOW", "--e", ["off", "low"], "off"), UsageError);
});

test("a load request has the embedded model and the machine's defaults when nothing is said", () => {
  const request = loadRequest({});
  assert.match(request.folder, /media.nano$/);
  assert.deepEqual(
    { ...request, folder: "" },
    {
      folder: "",
      backend: "auto",
      threads: 0,
      slopeForm: "A",
      isa: "",
      kvFormat: "bf16",
      deviceMemoryBytes: 0,
      device: -1,
    },
  );
  assert.equal(loadRequest({ kv: "q8" }).kvFormat, "q8");
  assert.equal(loadRequest({ isa: "amx" }).isa, "amx");
  assert.throws(() => loadRequest({ kv: "int4" }), UsageError);
  assert.throws(() => loadRequest({ isa: "sse9" }), UsageError);
  assert.throws(() => loadRequest({ isa: "" }), UsageError);
  assert.equal(loadRequest({ backend: "reference", slope: "B" }).slopeForm, "B");
  assert.equal(loadRequest({ backend: "cuda" }).backend, "cuda");
  assert.throws(() => loadRequest({ backend: "gpu" }), UsageError);
  assert.throws(() => loadRequest({ threads: "0" }), UsageError);
});

test("the memory and the number of a GPU are read with their units and limits", () => {
  const limit = (value: string): number => loadRequest({ "vram-limit": value }).deviceMemoryBytes;
  assert.equal(limit("8G"), 8 * 2 ** 30);
  assert.equal(limit("8gb"), 8 * 2 ** 30);
  assert.equal(limit("7.5GiB"), 7.5 * 2 ** 30);
  assert.equal(limit("7500M"), 7_500 * 2 ** 20);
  for (const value of ["", "8", "G", "-8G", "8T", "63M", "0G", "8 G", "1e3G", "9999999999G", "8G0"]) {
    assert.throws(() => limit(value), UsageError, value);
  }
  assert.throws(() => limit("8"), /from 64M to 1048576G, such as 8G or 7500M, not "8"/);
  assert.equal(loadRequest({ device: "1" }).device, 1);
  for (const value of ["-1", "64", "x"]) assert.throws(() => loadRequest({ device: value }), UsageError, value);
});
