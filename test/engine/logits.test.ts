// Log-probabilities from rows of logits: against a plain softmax, for any split, and refusing what is not finite.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { logSoftmaxRows } from "../../src/engine/logits";
import { Pacer } from "../../src/engine/promptTokens";
import { failureKind } from "./engineUnderTest";

const vocabRows = 7;
const pacer = new Pacer(() => undefined);

/** Logits that depend on the token and its position alone, as a model's do on what stands before. */
function modelOf(): { readonly fed: number[]; readonly logits: (piece: Int32Array) => Promise<Float32Array> } {
  const fed: number[] = [];
  let position = 0;
  return {
    fed,
    logits: (piece) => {
      fed.push(piece.length);
      const rows = Array.from(piece).flatMap((id) => {
        position += 1;
        return Array.from({ length: vocabRows }, (_, column) => Math.fround(Math.sin(id * 3 + column * position) * 9));
      });
      return Promise.resolve(Float32Array.from(rows));
    },
  };
}

test("any split gives the numbers of a plain softmax", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(vocabRows - 1), { minLength: 1, maxLength: 30 }),
      fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 8 }),
      async (ids, split) => {
        const whole = await logSoftmaxRows(ids, [], vocabRows, pacer, modelOf().logits);
        const model = modelOf();
        assert.deepEqual(await logSoftmaxRows(ids, split, vocabRows, pacer, model.logits), whole);
        assert.equal(
          model.fed.reduce((sum, length) => sum + length, 0),
          ids.length,
        );
        const rows = await modelOf().logits(Int32Array.from(ids));
        for (const [position, id] of ids.slice(1).entries()) {
          const row = Array.from(rows.subarray(position * vocabRows, (position + 1) * vocabRows));
          const expected = (row[id] ?? 0) - Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
          assert.ok(Math.abs(expected - (whole.logprobs[position] ?? Number.NaN)) < 1e-9);
          assert.equal(whole.argmax[position], row.indexOf(Math.max(...row)));
        }
        assert.deepEqual(whole.last, Array.from(rows.subarray((ids.length - 1) * vocabRows)));
      },
    ),
  );
});

test("ties go to the lower id; no tokens, a token beyond the rows and logits that are no numbers are typed", async () => {
  const flat = (): Promise<Float32Array> => Promise.resolve(new Float32Array(vocabRows));
  const { argmax } = await logSoftmaxRows([3], [], vocabRows, pacer, flat);
  assert.deepEqual(argmax, [0]);
  assert.equal(await failureKind(logSoftmaxRows([], [], vocabRows, pacer, flat)), "argument-invalid");
  assert.equal(await failureKind(logSoftmaxRows([1, vocabRows], [1], vocabRows, pacer, flat)), "token-out-of-range");
  const broken = (): Promise<Float32Array> => Promise.resolve(new Float32Array(vocabRows).fill(Number.NaN));
  assert.equal(await failureKind(logSoftmaxRows([1], [], vocabRows, pacer, broken)), "internal");
});
