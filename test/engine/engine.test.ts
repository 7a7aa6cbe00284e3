// The engine through its client: a real host process with the real addon and a tiny model.
import assert from "node:assert/strict";
import * as path from "node:path";
import { readFileSync, rmSync } from "node:fs";
import { test } from "node:test";
import { RingsideFailure } from "../../src/protocol/errors";
import type { EngineStatus, LogitsDone, SyncProgress } from "../../src/protocol/engine";
import { failureKind, newEngine, root, scratchFolder, spoil, tinyModel } from "./engineUnderTest";
import { greedy, loadRequest, promptOf } from "./prompts";

test("loads, reads, generates, and tells its state", async () => {
  const engine = newEngine();
  const states: EngineStatus["state"][] = [];
  engine.onStatus(({ state }) => {
    if (states.at(-1) !== state) states.push(state);
  });
  assert.equal(engine.status().state, "stopped");
  const fractions: number[] = [];
  const info = await engine.load(loadRequest(tinyModel()), { onProgress: (fraction) => fractions.push(fraction) });
  assert.equal(info.layers, 6);
  assert.equal(info.vocabRows, 512);
  assert.deepEqual(
    fractions,
    [...fractions].sort((left, right) => left - right),
  );

  const progress: SyncProgress[] = [];
  const prompt = promptOf(5_000, "where?");
  const done = await engine.sync(prompt, { onProgress: (now) => progress.push(now) });
  assert.equal(done.reusedTokens, 0);
  assert.ok(done.promptTokens > done.baseTokens && done.baseTokens > 1_000);
  assert.equal(done.baseTokensRead, done.baseTokens);
  assert.equal(progress[0]?.promptTokens, done.promptTokens);

  const ids: number[] = [];
  let text = "";
  const generated = await engine.generate(
    { maxTokens: 40, sampler: greedy },
    {
      onTokens: (batch) => {
        ids.push(...batch.ids);
        text += batch.text;
      },
    },
  );
  assert.ok(["token-limit", "stop-token"].includes(generated.reason), generated.reason);
  assert.equal(ids.length, generated.tokens);
  assert.ok(generated.tokens > 0);
  assert.equal(text, (await engine.detokenize([ids]))[0]);
  assert.deepEqual(states, ["starting", "loading", "ready", "reading", "ready", "generating", "ready"]);
  assert.ok((engine.status().prefillTokensPerSecond ?? 0) > 0);
  await engine.stop();
  assert.equal(engine.status().state, "stopped");
});

test("a second question reads fewer than 64 tokens of the base again, and gets the answer of a fresh engine", async () => {
  const model = loadRequest(tinyModel());
  const engine = newEngine();
  await engine.load(model);
  const answerOf = async (port: typeof engine): Promise<number[]> => {
    const ids: number[] = [];
    await port.generate({ maxTokens: 24, sampler: greedy }, { onTokens: (batch) => ids.push(...batch.ids) });
    return ids;
  };
  await engine.sync(promptOf(6_000, "first question?"));
  await answerOf(engine);
  const second = await engine.sync(promptOf(6_000, "and a second one?"));
  assert.ok(second.baseTokensRead < 64, `${String(second.baseTokensRead)} of ${String(second.baseTokens)}`);
  assert.ok(second.reusedTokens > second.baseTokens - 64);
  const warm = await answerOf(engine);

  const fresh = newEngine();
  await fresh.load(model);
  const cold = await fresh.sync(promptOf(6_000, "and a second one?"));
  assert.equal(cold.reusedTokens, 0);
  assert.deepEqual(warm, await answerOf(fresh), "a snapshot changes latency, never an answer");

  // Two bases are kept: after another repository the first is still there.
  await engine.sync(promptOf(3_000, "another repository?"));
  const back = await engine.sync(promptOf(6_000, "back again?"));
  assert.ok(back.baseTokensRead < 64);
});

test("an unchanged prompt is not read again", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(tinyModel()));
  const first = await engine.sync(promptOf(2_000, "same"));
  const again = await engine.sync(promptOf(2_000, "same"));
  assert.ok(first.promptTokens - again.reusedTokens <= 1, JSON.stringify(again));
});

test("added tokens are put in by id, and their spelling in text is text", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(tinyModel()));
  const [plain, added] = [
    await engine.tokenize(["<think>abc</think>"], false),
    await engine.tokenize(["<think>abc</think>"], true),
  ];
  assert.equal(added[0]?.length, 3);
  assert.ok((plain[0]?.length ?? 0) > 10);
  assert.deepEqual(await engine.detokenize([plain[0] ?? []]), ["<think>abc</think>"]);
  const piece = async (parts: readonly ({ special: string } | { text: string })[]): Promise<number> =>
    (await engine.sync({ pieces: [{ parts }], basePieces: 0 })).promptTokens;
  assert.equal(await piece([{ special: "<think>" }, { text: "abc" }]), 2);
  assert.equal(await piece([{ text: "<think>" }, { text: "abc" }]), (plain[0]?.length ?? 0) - "</think>".length);
  // This model has no <ab>: its spelling is joined with the text beside it, where "c" then merges.
  assert.equal(await piece([{ special: "ab" }, { text: "c" }]), 1);
  assert.equal(await piece([{ text: "ab" }, { text: "c" }]), 2, "parts of text are encoded one by one");
});

test("counting many texts equals tokenizing them, and can be cancelled", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(tinyModel()));
  const texts = Array.from({ length: 300 }, (_, index) => `line ${String(index)} abc `.repeat(index % 40));
  const counts = await engine.countTokens(texts);
  assert.deepEqual(
    counts,
    (await engine.tokenize(texts, false)).map((ids) => ids.length),
  );
  const long = Array.from({ length: 400 }, (_, index) => `${String(index)} some words of a file\n`.repeat(2_000));
  const controller = new AbortController();
  const counting = failureKind(engine.countTokens(long, controller.signal));
  await new Promise((resolve) => setTimeout(resolve, 50));
  const abortedMs = performance.now();
  controller.abort();
  assert.equal(await counting, "cancelled");
  assert.ok(performance.now() - abortedMs < 1_000);
});

test("what a model folder lacks or has wrong is an error value that names it, and a good folder loads after it", async () => {
  const engine = newEngine();
  const cases: readonly (readonly [name: string, kinds: readonly string[], folder: () => string])[] = [
    ["missing folder", ["file-missing"], () => path.join(scratchFolder("gone"), "model")],
    ["empty folder", ["file-missing"], () => scratchFolder("empty")],
    [
      "weights cut short",
      ["file-truncated", "file-malformed"],
      () => spoiled("model.safetensors", (bytes) => bytes.subarray(0, bytes.length / 2)),
    ],
    [
      "weights cut in the header",
      ["file-truncated", "file-malformed"],
      () => spoiled("model.safetensors", (bytes) => bytes.subarray(0, 100)),
    ],
    ["weights of no bytes", ["file-truncated", "file-malformed"], () => spoiled("model.safetensors", () => "")],
    ["config that is no JSON", ["file-malformed", "config-invalid"], () => spoiled("config.json", () => "{")],
    [
      "another architecture",
      ["architecture-unknown"],
      () =>
        spoiled("config.json", (bytes) =>
          bytes
            .toString()
            .replace("BailingMoeLinearV2ForCausalLM", "LlamaForCausalLM")
            .replace("bailing_moe_linear", "llama"),
        ),
    ],
    [
      "other widths than the weights",
      ["tensor-shape"],
      () =>
        spoiled("config.json", (bytes) =>
          bytes.toString().replace('"moe_intermediate_size": 24', '"moe_intermediate_size": 32'),
        ),
    ],
    ["tokenizer that is none", ["tokenizer-invalid", "file-malformed"], () => spoiled("tokenizer.json", () => "[]")],
  ];
  for (const [name, kinds, folder] of cases) {
    const kind = await failureKind(engine.load(loadRequest(folder())));
    assert.ok(kinds.includes(kind), `${name}: ${kind}`);
    assert.equal(engine.status().state, "failed", name);
    assert.equal(engine.status().error?.kind, kind, name);
    assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), kind, `${name}: asked again`);
  }
  const good = await engine.load(loadRequest(tinyModel()));
  assert.equal(good.layers, 6);
  assert.equal(engine.status().error, null);
  assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), "resolved");
});

function spoiled(file: string, change: (bytes: Buffer) => Buffer | string): string {
  const folder = tinyModel();
  spoil(folder, file, change);
  return folder;
}

test("no model: typed; no addon: typed; a prompt too long for the context: typed, and the next one works", async () => {
  const engine = newEngine();
  assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), "model-not-loaded");
  const lame = newEngine({ addonPath: path.join(scratchFolder("addon"), "ringside.node") });
  assert.equal(await failureKind(lame.load(loadRequest(tinyModel()))), "engine-missing");
  const hostless = newEngine({ hostScript: path.join(scratchFolder("host"), "engineHost.js") });
  assert.equal(await failureKind(hostless.load(loadRequest(tinyModel()))), "engine-missing");
  const nodeless = newEngine({ nodePath: path.join(scratchFolder("node"), "node") });
  assert.equal(await failureKind(nodeless.load(loadRequest(tinyModel()))), "engine-missing");

  await engine.load(loadRequest(tinyModel()));
  assert.equal(await failureKind(engine.sync(promptOf(60_000, "q"))), "context-full");
  assert.equal(await failureKind(engine.sync({ pieces: [], basePieces: 0 })), "argument-invalid");
  assert.equal(await failureKind(engine.sync(promptOf(9_000_000, "q"))), "argument-invalid");
  assert.equal(await failureKind(engine.detokenize([[511_000]])), "token-out-of-range");
  assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), "resolved");
});

test("one reading or generation at a time", async () => {
  const engine = newEngine();
  const model = loadRequest(tinyModel());
  await engine.load(model);
  const reading = engine.sync(promptOf(20_000, "q"));
  assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), "engine-busy");
  assert.equal(
    await failureKind(engine.generate({ maxTokens: 1, sampler: greedy }, { onTokens: () => undefined })),
    "engine-busy",
  );
  assert.equal(await failureKind(engine.load(loadRequest(tinyModel()))), "engine-busy");
  assert.equal(await failureKind(engine.unload()), "engine-busy");
  assert.equal((await engine.load(model)).layers, 6, "the same model is there already");
  assert.ok((await reading).promptTokens > 10_000);
  assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), "resolved");
});

test("unload forgets the model until it is loaded again; equal loads share one", async () => {
  const engine = newEngine();
  const model = loadRequest(tinyModel());
  const [first, second] = await Promise.all([engine.load(model), engine.load({ ...model })]);
  assert.deepEqual(first, second);
  await engine.unload();
  assert.equal(engine.status().model, null);
  assert.equal(await failureKind(engine.countTokens(["x"])), "model-not-loaded");
  await engine.load(model);
  assert.deepEqual(await engine.countTokens(["abc"]), [1]);
});

test("weights without a tokenizer load for numbers; text is refused, naming the file", async () => {
  const folder = tinyModel();
  rmSync(path.join(folder, "tokenizer.json"));
  const engine = newEngine();
  await engine.load(loadRequest(folder));
  assert.equal((await engine.logits([1, 2, 3], [])).argmax.length, 3);
  await assert.rejects(engine.countTokens(["x"]), (cause: unknown) => {
    assert.ok(cause instanceof RingsideFailure);
    assert.equal(cause.error.kind, "file-missing");
    return cause.error.subject.endsWith("tokenizer.json");
  });
  assert.equal(await failureKind(engine.sync(promptOf(100, "q"))), "file-missing");
});

interface GoldenCase {
  readonly ids: readonly number[];
  readonly last_logits: readonly number[];
  readonly argmax: readonly number[];
  readonly margin: readonly number[];
  readonly logprob: readonly number[];
  readonly state_norm: Readonly<Record<string, readonly number[]>>;
}

function assertClose(actual: readonly number[], expected: readonly number[], tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (const [index, value] of expected.entries()) {
    const difference = Math.abs(value - (actual[index] ?? Number.NaN));
    assert.ok(
      difference <= tolerance * Math.max(1, Math.abs(value)),
      `${what} ${String(index)}: ${String(difference)}`,
    );
  }
}

function goldenCases(): readonly GoldenCase[] {
  const file = path.join(root, "test", "golden", "tiny-silu", "cases.json");
  return (JSON.parse(readFileSync(file, "utf8")) as { readonly cases: readonly GoldenCase[] }).cases;
}

function assertGolden(logits: LogitsDone, golden: GoldenCase, tolerance: number): void {
  for (const [position, id] of golden.argmax.entries()) {
    if ((golden.margin[position] ?? 0) > 1e-3) assert.equal(logits.argmax[position], id, `argmax ${String(position)}`);
  }
  // The golden also knows the token that follows the last one, which was not given here.
  assertClose(logits.logprobs, golden.logprob.slice(0, -1), tolerance, "logprob");
  assertClose(logits.last, golden.last_logits, tolerance, "logit");
  const norms = Object.values(golden.state_norm);
  assert.equal(logits.stateNorms.length, norms.length);
  for (const [layer, norm] of norms.entries()) {
    assertClose(logits.stateNorms[layer] ?? [], norm, tolerance, "state norm");
  }
}

test("the reference backend's logits arrive as the goldens have them", async () => {
  const engine = newEngine();
  await engine.load(loadRequest(tinyModel(), { backend: "reference" }));
  for (const golden of goldenCases()) assertGolden(await engine.logits(golden.ids, []), golden, 1e-5);
});

test("logits equal the goldens, whatever the split, and leave the session alone", async () => {
  const engine = newEngine();
  // The goldens were made without rounding keys and values.
  await engine.load(loadRequest(tinyModel(), { kvFormat: "f32" }));
  await engine.sync(promptOf(2_000, "kept"));
  for (const golden of goldenCases()) {
    const whole = await engine.logits(golden.ids, []);
    assertGolden(whole, golden, 1e-3);
    assert.deepEqual(await engine.logits(golden.ids, [1, 2, 5, 100]), whole, "the same bits");
  }
  const again = await engine.sync(promptOf(2_000, "kept"));
  assert.ok(again.promptTokens - again.reusedTokens <= 1);
});
