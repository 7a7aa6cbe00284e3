// Owns: softmax attention to one absolute block of 256 keys, and the merge of blocks in ascending order.
// A block's partial result depends on the row and the block alone, so blocks may be computed apart and merged later.
#pragma once

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/kernels.h"

namespace ringside::cpu {
namespace {

RS_INLINE float add_lanes(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

RS_INLINE float largest_lane(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

// Turns the scores of one row into exp(score - maximum) and zeros past `limit`.
RS_INLINE void exponentiate_row(float* scores, int64_t limit, int64_t columns, float* row_maximum, float* row_sum) {
  for (int64_t j = limit; j < columns; ++j) scores[j] = -__builtin_inff();
  Vec largest = broadcast(-__builtin_inff());
  for (int64_t j = 0; j < columns; j += kLanes) largest = maximum(load(scores + j), largest);
  const float top = largest_lane(largest);
  Vec sum = Vec{};
  for (int64_t j = 0; j < columns; j += kLanes) {
    store(scores + j, exponential(load(scores + j) - broadcast(top)));
  }
  for (int64_t j = limit; j < columns; ++j) scores[j] = 0.0f;
  for (int64_t j = 0; j < columns; j += kLanes) sum += load(scores + j);
  *row_maximum = top;
  *row_sum = add_lanes(sum);
}

void key_block(const KeyBlock& block) {
  const int64_t d = block.head_dim;
  int64_t keys = 0;
  for (int64_t r = 0; r < block.rows; ++r) keys = block.limits[r] > keys ? block.limits[r] : keys;
  // Whole vectors: the columns of keys not yet written hold finite values and are masked.
  const int64_t columns = (keys + 15) / 16 * 16;
  float* const scores = block.scores;
  gemm(Operands<float>{block.q, d, block.k_columns, kPageTokens, d}, block.rows, columns,
       [=](int64_t r, int64_t n, auto sum) { store(scores + r * kPageTokens + n, sum); });
  for (int64_t r = 0; r < block.rows; ++r) {
    exponentiate_row(scores + r * kPageTokens, block.limits[r], columns, block.maximum + r, block.sum + r);
  }
  float* const out = block.out;
  gemm(Operands<float>{scores, kPageTokens, block.v, d, keys}, block.rows, d,
       [=](int64_t r, int64_t n, auto sum) { store(out + r * d + n, sum); });
}

void merge_key_block(float* row_maximum, float* row_sum, float* out, float block_maximum, float block_sum,
                     const float* block_out, int64_t head_dim) {
  const bool grows = block_maximum > *row_maximum;
  const float top = grows ? block_maximum : *row_maximum;
  const Vec old_weight = exponential(broadcast(*row_maximum - top));
  const Vec new_weight = exponential(broadcast(block_maximum - top));
  *row_maximum = top;
  *row_sum = fma(*row_sum, old_weight[0], block_sum * new_weight[0]);
  int64_t i = 0;
  for (; i + kLanes <= head_dim; i += kLanes) {
    store(out + i, fma(load(out + i), old_weight, load(block_out + i) * new_weight));
  }
  for (; i < head_dim; ++i) out[i] = fma(out[i], old_weight[0], block_out[i] * new_weight[0]);
}

}  // namespace
}  // namespace ringside::cpu
