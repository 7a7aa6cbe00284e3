// Every kind of failure has one clear sentence, whatever its fields hold.
import assert from "node:assert/strict";
import { test } from "node:test";
import { wordError } from "../../src/cli/words";
import { errorKinds } from "../../src/protocol/errors";

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
