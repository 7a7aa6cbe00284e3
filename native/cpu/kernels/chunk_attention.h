// Owns: the chunkwise form of linear attention for one head (specification section 3.5, house rule 3a) in fp32.
// A row reads the state of the chunk's start and the rows of its chunk up to itself; the state moves once a chunk.
#pragma once

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/gemm.h"

namespace ringside::cpu {
namespace {

void chunk_read(const ChunkRead& chunk) {
  const int64_t d = chunk.head_dim;
  float* const scores = reinterpret_cast<float*>(chunk.scratch);
  float* const from_state = scores + RS_CHUNK_TOKENS * RS_CHUNK_TOKENS;

  gemm(Operands<float>{chunk.q, chunk.q_stride, chunk.state, d, d}, chunk.rows, d,
       [=](int64_t r, int64_t n, auto sum) { store(from_state + r * d + n, sum); });
  // Rows in groups, so that the keys after a group's last row cost nothing.
  constexpr int64_t kGroup = 12;
  for (int64_t first = 0; first < chunk.rows; first += kGroup) {
    const int64_t rows = chunk.rows - first < kGroup ? chunk.rows - first : kGroup;
    const int64_t keys = chunk.first + first + rows;
    // Whole vectors: key columns past the last row hold old finite values and are masked below.
    const int64_t key_columns = (keys + 15) / 16 * 16;
    gemm(Operands<float>{chunk.q + first * chunk.q_stride, chunk.q_stride, chunk.k_columns, RS_CHUNK_TOKENS, d}, rows,
         key_columns, [=](int64_t r, int64_t n, auto sum) { store(scores + r * RS_CHUNK_TOKENS + n, sum); });
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = chunk.first + first + r;
      float* row = scores + r * RS_CHUNK_TOKENS;
      for (int64_t j = 0; j <= i; ++j) row[j] *= chunk.decay[i - j];
      for (int64_t j = i + 1; j < keys; ++j) row[j] = 0.0f;
    }
    gemm(Operands<float>{scores, RS_CHUNK_TOKENS, chunk.v, d, keys}, rows, d, [&](int64_t r, int64_t n, auto sum) {
      const auto carried = load_as<decltype(sum)>(from_state + (first + r) * d + n);
      const auto decay = broadcast_as<decltype(sum)>(chunk.decay[chunk.first + first + r + 1]);
      store(chunk.out + (first + r) * chunk.out_stride + n, fma(decay, carried, sum));
    });
  }
}

void chunk_commit(const ChunkCommit& chunk) {
  const int64_t d = chunk.head_dim;
  float* const weighted_keys = reinterpret_cast<float*>(chunk.scratch);
  for (int64_t a = 0; a < d; ++a) {
    const float* k = chunk.k_columns + a * RS_CHUNK_TOKENS;
    float* weighted = weighted_keys + a * RS_CHUNK_TOKENS;
    for (int64_t j = 0; j < RS_CHUNK_TOKENS; ++j) weighted[j] = k[j] * chunk.decay[RS_CHUNK_TOKENS - 1 - j];
  }
  gemm(Operands<float>{weighted_keys, RS_CHUNK_TOKENS, chunk.v, d, RS_CHUNK_TOKENS}, d, d,
       [&](int64_t a, int64_t b, auto sum) {
         const auto before = load_as<decltype(sum)>(chunk.state + a * d + b);
         const auto decay = broadcast_as<decltype(sum)>(chunk.decay[RS_CHUNK_TOKENS]);
         store(chunk.next_state + a * d + b, fma(decay, before, sum));
       });
}

}  // namespace
}  // namespace ringside::cpu
