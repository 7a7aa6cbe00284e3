// Every kind of failure has one clear sentence, whatever its fields hold.
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { at } from "../../scripts/paths.mjs";
import { wordError } from "../../src/cli/words";
import { errorKinds, gpuCapability, gpuSubjects } from "../../src/protocol/errors";

test("each kind is one sentence, with its fields and without", () => {
  for (const kind of errorKinds) {
    for (const [subject, expected, actual] of [
      ["", "", ""],
      ["SUBJECT", "", ""],
      ["SUBJECT", "EXPECTED", "ACTUAL"],
    ] as const) {
      const sentence = wordError({ kind, subject, expected, actual });
      assert.match(sentence, /^[A-Z].*\.$/s, `${kind}: ${sentence}`);
      assert.ok(!/undefined| {2}|\(\)| ,| ;/.test(sentence), `${kind}: ${sentence}`);
      assert.ok(!sentence.includes("\n"), kind);
    }
  }
});

test("the fields that tell what is wrong are in the sentence", () => {
  const shape = wordError({
    kind: "tensor-shape",
    subject: "model.layers.3.mlp.gate.weight",
    expected: "[256, 2048]",
    actual: "[256, 1024]",
  });
  for (const part of ["model.layers.3.mlp.gate.weight", "[256, 2048]", "[256, 1024]"]) assert.ok(shape.includes(part));
  assert.match(
    wordError({ kind: "question-too-long", subject: "", expected: "20000", actual: "100000" }),
    /100000.*20000/,
  );
});

test("why there is no GPU, or not enough of one, is a sentence that says what to do", () => {
  const unavailable = (subject: string, expected: string, actual: string): string =>
    wordError({ kind: "backend-unavailable", subject, expected, actual });
  assert.equal(
    unavailable(gpuSubjects.driver, "580 or newer (CUDA 13.0)", "none"),
    "There is no NVIDIA driver on this machine, and the GPU backend needs version 580 or newer (CUDA 13.0); install it, or use --backend auto.",
  );
  assert.match(unavailable(gpuSubjects.driver, "580 or newer (CUDA 13.0)", "CUDA 12.4"), /580.*CUDA 12\.4; update it/);
  assert.match(unavailable(gpuSubjects.device, "at least one", "none"), /no NVIDIA GPU.*nvidia-smi/);
  assert.match(unavailable(gpuSubjects.library, "beside the engine", "none"), /is not there; run "npm run build"/);
  assert.match(unavailable(gpuSubjects.library, "version 3", "2"), /needed version 3, found 2/);
  assert.match(
    unavailable("Tesla V100", `${gpuCapability} 8.0 or more`, "7.0"),
    /^Tesla V100 is too old .* found 7\.0;/,
  );
  assert.match(unavailable("instruction set", "avx2", "amx"), /instruction set.*needed avx2, found amx/);
  const memory = (subject: string, expected: string, actual: string): string =>
    wordError({ kind: "out-of-memory", subject, expected, actual });
  assert.match(
    memory(gpuSubjects.memory, "17.50 GB needed", "12.00 GB free"),
    /^There is not enough GPU memory \(17\.50 GB needed, 12\.00 GB free\); .*--backend cpu\.$/,
  );
  assert.match(memory("cudaMalloc", "", "cudaErrorMemoryAllocation: out of memory"), /^There is not enough GPU memory/);
  assert.match(memory("weights", "", ""), /enough memory for weights/);
});

test("the names of those failures are the engine's", () => {
  const engine = ["native/model/backend_library.cc", "native/cuda/memory_plan.cu", "native/cuda/backend.cu"]
    .map((file) => fs.readFileSync(at(file), "utf8"))
    .join("");
  for (const name of Object.values(gpuSubjects)) assert.ok(engine.includes(`"${name}"`), name);
  assert.ok(engine.includes(`"${gpuCapability} `));
});
