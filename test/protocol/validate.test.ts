// Validators: every message of the protocol passes unchanged, and each of its fields refuses every wrong value.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { parseEngineReply, parseEngineRequest } from "../../src/protocol/validate";
import { failure, RingsideFailure } from "../../src/protocol/errors";
import { lastSession } from "../../src/protocol/engine";
import type { EngineReply, EngineRequest } from "../../src/protocol/engine";

const sampler = { temperature: 0.7, topP: 0.9, repetitionPenalty: 1.1, seed: 5 };
const info = {
  folder: "/m",
  layout: "plain",
  backend: "cpu",
  device: "CPU",
  isa: "avx2",
  threads: 2,
  vocab: 500,
  vocabRows: 512,
  layers: 6,
  linearLayers: 4,
  heads: 6,
  contextTokens: 32_768,
  weightFileBytes: 1,
  weightResidentBytes: 1,
  stateBytes: 1,
  kvBytesPerToken: 1,
};

const load = {
  folder: "/m",
  backend: "auto",
  threads: 0,
  slopeForm: "A",
  isa: "",
  kvFormat: "bf16",
  deviceMemoryBytes: 0,
  device: 0,
} as const;

const member = { session: 1, maxTokens: 5, sampler, promptLookup: true };
const requests: readonly EngineRequest[] = [
  { type: "hello", id: 1, version: 1 },
  { type: "load", id: 1, load },
  { type: "unload", id: 1 },
  { type: "count", id: 1, texts: ["a", ""] },
  { type: "tokenize", id: 1, texts: ["a"], special: true },
  { type: "detokenize", id: 1, ids: [[1, 2], []] },
  { type: "logits", id: 1, ids: [1, 2], split: [1] },
  {
    type: "sync",
    id: 1,
    prompt: { pieces: [{ parts: [{ special: "<role>" }, { text: "x" }] }], basePieces: 1 },
    repository: "/r",
    session: 3,
  },
  { type: "generate", id: 1, maxTokens: 5, sampler, promptLookup: true },
  { type: "generateTogether", id: 1, members: [member] },
  { type: "cancel", id: 2, target: 1, session: 0 },
];
const replies: readonly EngineReply[] = [
  { type: "progress", id: 1, fraction: 0.5 },
  { type: "syncProgress", id: 1, progress: { position: 1, promptTokens: 2, reusedTokens: 0, tokensPerSecond: 3.5 } },
  { type: "tokens", id: 1, session: 2, batch: { ids: [1], text: "x" } },
  { type: "failed", id: 1, error: { kind: "tensor-shape", subject: "t", expected: "a", actual: "b" } },
  { type: "result", id: 1, result: { of: "hello", version: 1, pid: 5 } },
  { type: "result", id: 1, result: { of: "load", info } },
  { type: "result", id: 1, result: { of: "unload" } },
  { type: "result", id: 1, result: { of: "count", tokens: [1, 0] } },
  { type: "result", id: 1, result: { of: "tokenize", ids: [[1]] } },
  { type: "result", id: 1, result: { of: "detokenize", texts: ["x"] } },
  {
    type: "result",
    id: 1,
    result: { of: "logits", logits: { argmax: [1], logprobs: [-0.5], last: [-1.5, 2], stateNorms: [[0.5]] } },
  },
  {
    type: "result",
    id: 1,
    result: {
      of: "sync",
      sync: { promptTokens: 9, reusedTokens: 1, baseTokens: 5, baseTokensRead: 4, milliseconds: 1.5 },
    },
  },
  {
    type: "result",
    id: 1,
    result: {
      of: "generate",
      generate: { reason: "token-limit", tokens: 3, milliseconds: 1.5, firstTokenMs: 0.5, drafted: 4, accepted: 2 },
    },
  },
  {
    type: "result",
    id: 1,
    result: {
      of: "generateTogether",
      generate: [{ reason: "cancelled", tokens: 3, milliseconds: 1.5, firstTokenMs: 0.5, drafted: 4, accepted: 2 }],
    },
  },
  { type: "result", id: 1, result: { of: "cancel" } },
];

type Path = readonly (string | number)[];

/** The paths of all leaves of a value. */
function leaves(value: unknown, path: Path = []): Path[] {
  if (typeof value !== "object" || value === null) return [path];
  return Object.entries(value).flatMap(([key, child]) =>
    leaves(child, [...path, Array.isArray(value) ? Number(key) : key]),
  );
}

function at(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((node, key) => (node as Record<string | number, unknown>)[key], value);
}

function withLeaf(message: unknown, path: Path, leaf: unknown): unknown {
  const copy = structuredClone(message);
  const parent = at(copy, path.slice(0, -1)) as Record<string | number, unknown>;
  const key = path.at(-1) ?? "";
  if (leaf === undefined) {
    if (typeof key === "number") parent[key] = undefined;
    else Reflect.deleteProperty(parent, key);
  } else parent[key] = leaf;
  return copy;
}

/** Numbers that may be below zero, or as large as a float or a count of bytes. */
const signed = new Set(["logprobs", "last", "device"]);
const large = new Set(["last", "stateNorms"]);

const directions = [
  ["request", parseEngineRequest, requests],
  ["reply", parseEngineReply, replies],
] as const;

for (const [direction, parse, messages] of directions) {
  test(`every ${direction} comes through unchanged, without what does not belong to it`, () => {
    for (const message of messages) {
      assert.deepEqual(parse(structuredClone(message)), message);
      assert.deepEqual(parse({ ...structuredClone(message), extra: 1, ["__proto__"]: { id: 9 } }), message);
    }
  });

  test(`every field of every ${direction} refuses every wrong value`, () => {
    let refused = 0;
    for (const message of messages) {
      for (const path of leaves(message)) {
        const good = at(message, path);
        const inside = (names: ReadonlySet<string>): boolean => path.some((key) => names.has(String(key)));
        const wrong: unknown[] = [undefined, null, {}, [], Number.NaN, Infinity, -Infinity];
        if (typeof good === "number") {
          wrong.push("1", true);
          if (!inside(signed)) wrong.push(-1);
          if (!inside(large)) wrong.push(2 ** 53, 1e308);
        } else if (typeof good === "string") wrong.push(1, false, "x".repeat(8 * 1024 * 1024 + 1));
        else wrong.push("true", 1);
        for (const leaf of wrong) {
          const changed = withLeaf(message, path, leaf);
          assert.throws(
            () => parse(changed),
            (cause: unknown) => cause instanceof RingsideFailure && cause.error.kind === "frame-invalid",
            `${JSON.stringify(message)} with ${path.join(".")} = ${String(leaf).slice(0, 20)}`,
          );
          refused += 1;
        }
      }
    }
    assert.ok(refused > 200, `only ${String(refused)} cases`);
  });
}

test("integers refuse fractions and values just outside their range", () => {
  const outside: readonly unknown[] = [
    { type: "hello", id: 0, version: 1 },
    { type: "hello", id: 1.5, version: 1 },
    { type: "load", id: 1, load: { ...load, threads: 1_025 } },
    { type: "load", id: 1, load: { ...load, deviceMemoryBytes: 2 ** 50 + 1 } },
    { type: "load", id: 1, load: { ...load, device: -2 } },
    { type: "load", id: 1, load: { ...load, device: 64 } },
    { type: "generate", id: 1, maxTokens: 0, sampler, promptLookup: true },
    { type: "generate", id: 1, maxTokens: 1, sampler: { ...sampler, topP: 0 }, promptLookup: true },
    { type: "generate", id: 1, maxTokens: 1, sampler: { ...sampler, topP: 1.01 }, promptLookup: true },
    { type: "generate", id: 1, maxTokens: 1, sampler: { ...sampler, repetitionPenalty: 0.99 } },
    { type: "generate", id: 1, maxTokens: 1, sampler: { ...sampler, seed: 0.5 } },
    { type: "detokenize", id: 1, ids: [[2 ** 31]] },
    { type: "sync", id: 1, prompt: { pieces: [], basePieces: 1 }, repository: "", session: 0 },
    { type: "sync", id: 1, prompt: { pieces: [], basePieces: 0 }, repository: "", session: lastSession + 1 },
    { type: "generateTogether", id: 1, members: [] },
    { type: "generateTogether", id: 1, members: [{ ...member, session: 0 }] },
    { type: "generateTogether", id: 1, members: [member, { ...member, session: 2 }, member] },
    { type: "logits", id: 1, ids: [1], split: [0] },
  ];
  for (const value of outside) assert.throws(() => parseEngineRequest(value), RingsideFailure, JSON.stringify(value));
});

test("unknown types are refused, names of Object.prototype among them", () => {
  for (const type of ["", "Load", "constructor", "toString", "__proto__", 1, null, undefined, {}]) {
    assert.throws(() => parseEngineRequest({ type, id: 1 }), RingsideFailure);
    assert.throws(() => parseEngineReply({ type, id: 1 }), RingsideFailure);
    assert.throws(() => parseEngineReply({ type: "result", id: 1, result: { of: type } }), RingsideFailure);
  }
});

test("any value is either refused with a typed error or is a message", () => {
  fc.assert(
    fc.property(fc.anything(), (value) => {
      for (const parse of [parseEngineRequest, parseEngineReply]) {
        assert.throws(() => parse(value), RingsideFailure);
      }
    }),
    { numRuns: 2_000 },
  );
});

test("an error names the field and never the content of a string", () => {
  const secret = "the text of a prompt";
  try {
    parseEngineRequest({ type: "count", id: 1, texts: [secret, 5], other: secret });
    assert.fail("not refused");
  } catch (cause) {
    assert.ok(cause instanceof RingsideFailure);
    assert.equal(cause.error.subject, "request.texts[1]");
    assert.ok(!cause.message.includes(secret));
  }
  assert.throws(
    () => parseEngineRequest({ type: "tokenize", id: 1, texts: [], special: secret }),
    (cause: unknown) => cause instanceof RingsideFailure && !cause.message.includes(secret),
  );
});

test("no failure is too long for the wall, whatever its fields hold", () => {
  const long = "x".repeat(1_000_000);
  const { error } = failure("internal", long, long, long);
  assert.deepEqual(parseEngineReply({ type: "failed", id: 1, error }), { type: "failed", id: 1, error });
});
