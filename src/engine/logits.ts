// Owns: turning rows of logits into what `ringside logits` reports: argmax, log-probabilities of the given next tokens, the last row.
// Must stay in float64 after the fp32 logits, so that nothing is lost in the sums.
import { failure } from "../protocol/errors";
import type { Pacer } from "./promptTokens";

/** Rows asked for in one native call: the matrix of a piece is held as a whole. */
const maxLogitsPerCall = 128 * 1024 * 1024;

export async function logSoftmaxRows(
  ids: readonly number[],
  split: readonly number[],
  vocabRows: number,
  pacer: Pacer,
  logitsOf: (piece: Int32Array) => Promise<Float32Array>,
): Promise<{ argmax: number[]; logprobs: number[]; last: number[] }> {
  if (ids.length === 0) throw failure("argument-invalid", "tokens", "at least 1", "0");
  const argmax: number[] = [];
  const logprobs: number[] = [];
  let last: number[] = [];
  for (const [from, to] of piecesOf(ids.length, split, Math.max(1, Math.floor(maxLogitsPerCall / vocabRows)))) {
    const logits = await logitsOf(Int32Array.from(ids.slice(from, to)));
    for (let position = from; position < to; position += 1) {
      const row = logits.subarray((position - from) * vocabRows, (position - from + 1) * vocabRows);
      const { best, logNormalizer } = rowSums(row);
      argmax.push(best);
      const next = ids[position + 1];
      if (next !== undefined) {
        const logit = row[next];
        if (logit === undefined) {
          throw failure("token-out-of-range", "token", `below ${String(vocabRows)}`, String(next));
        }
        // Rounding may lift a probability of one above zero in the logarithm.
        logprobs.push(Math.min(0, logit - logNormalizer));
      } else last = Array.from(row);
      await pacer.pause();
    }
  }
  return { argmax, logprobs, last };
}

/** Consecutive [from, to) ranges: the given pieces, then the rest as one piece, each cut where it would be too large. */
function* piecesOf(total: number, split: readonly number[], maxPiece: number): Generator<readonly [number, number]> {
  let from = 0;
  for (const length of [...split, total]) {
    const end = Math.min(total, from + length);
    while (from < end) {
      const to = Math.min(end, from + maxPiece);
      yield [from, to];
      from = to;
    }
  }
}

function rowSums(row: Float32Array): { best: number; logNormalizer: number } {
  let best = 0;
  let largest = -Infinity;
  for (let id = 0; id < row.length; id += 1) {
    const logit = row[id] ?? Number.NaN;
    if (!Number.isFinite(logit)) throw failure("internal", "logits", "finite numbers", String(logit));
    // Strictly greater: ties go to the lower id.
    if (logit > largest) {
      largest = logit;
      best = id;
    }
  }
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - largest);
  return { best, logNormalizer: largest + Math.log(sum) };
}
