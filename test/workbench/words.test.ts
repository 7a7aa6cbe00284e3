// Every kind of failure and every reason has a sentence of its own that a person can act on.
import assert from "node:assert/strict";
import {
  dropReasonsInOrder,
  keepReasonsInOrder,
  errorOf,
  wordDropReason,
  wordError,
  wordKeepReason,
} from "../../src/extension/words";
import { errorKinds, failure, gpuSubjects } from "../../src/protocol/errors";

describe("words", () => {
  it("words every kind of failure, each differently", () => {
    const sentences = errorKinds.map((kind) => wordError({ kind, subject: "SUBJECT", expected: "12", actual: "34" }));
    assert.equal(new Set(sentences).size, errorKinds.length);
    for (const sentence of sentences) {
      assert.match(sentence, /^[A-Z].*\.$/s);
      assert.doesNotMatch(sentence, /\{\d\}|undefined/);
    }
  });

  it("still makes a sentence when no detail is known", () => {
    for (const kind of errorKinds) {
      const sentence = wordError({ kind, subject: "", expected: "", actual: "" });
      assert.doesNotMatch(sentence, /\(\)|\(needed \)/);
      assert.match(sentence, /\.$/);
    }
  });

  it("names the thing, the limit and the value", () => {
    assert.equal(
      wordError({ kind: "tensor-shape", subject: "model.norm.weight", expected: "[512]", actual: "[511]" }),
      "The tensor model.norm.weight has the wrong shape (needed [512], found [511]). The weights do not fit their config.json.",
    );
    assert.equal(
      wordError({ kind: "question-too-long", subject: "question", expected: "20000", actual: "100000" }),
      "The question has 100000 characters; at most 20000 are possible. Shorten it.",
    );
  });

  it("tells why there is no GPU, or not enough of one", () => {
    const driver = { kind: "backend-unavailable", subject: gpuSubjects.driver, expected: "580 or newer" } as const;
    assert.equal(
      wordError({ ...driver, actual: "none" }),
      "There is no NVIDIA driver on this machine. Install version 580 or newer to use the GPU.",
    );
    assert.match(wordError({ ...driver, actual: "CUDA 12.4" }), /needed 580 or newer, found CUDA 12\.4/);
    const memory = { kind: "out-of-memory", subject: gpuSubjects.memory } as const;
    assert.equal(
      wordError({ ...memory, expected: "17.50 GB needed", actual: "12.00 GB free" }),
      "There is not enough GPU memory (17.50 GB needed, 12.00 GB free). Close other programs on the GPU, or use a smaller model.",
    );
  });

  it("makes data of anything that was thrown", () => {
    assert.equal(errorOf(failure("context-full", "window")).kind, "context-full");
    assert.deepEqual(errorOf(new Error("why")), {
      kind: "internal",
      subject: "extension",
      expected: "",
      actual: "why",
    });
    assert.equal(errorOf("text").actual, "text");
  });

  it("words every reason for reading a file or leaving it out", () => {
    const words = [...dropReasonsInOrder.map(wordDropReason), ...keepReasonsInOrder.map(wordKeepReason)];
    assert.equal(new Set(words).size, 17);
    for (const reason of words) assert.match(reason, /^[a-z].{3,}[^.]$/);
  });
});
