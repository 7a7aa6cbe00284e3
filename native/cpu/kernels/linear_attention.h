// Owns: the chunkwise form of linear attention for one head (specification section 3.5, house rule 3a).
// A row reads the state of the chunk's start and the rows of its chunk up to itself; the state moves once a chunk.
#pragma once

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/kernels.h"

namespace ringside::cpu {
namespace {

void chunk_read(const ChunkRead& chunk) {
  const int64_t d = chunk.head_dim;
  const int64_t keys = chunk.first + chunk.rows;
  float* const from_state = chunk.from_state;
  float* const scores = chunk.scores;

  gemm(Operands<float>{chunk.q, chunk.q_stride, chunk.state, d, d}, chunk.rows, d,
       [=](int64_t r, int64_t n, auto sum) { store(from_state + r * d + n, sum); });
  // Whole vectors: key columns past the last row hold old finite values and are masked below.
  const int64_t key_columns = (keys + 15) / 16 * 16;
  gemm(Operands<float>{chunk.q, chunk.q_stride, chunk.k_columns, kChunkTokens, d}, chunk.rows, key_columns,
       [=](int64_t r, int64_t n, auto sum) { store(scores + r * kChunkTokens + n, sum); });
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const int64_t i = chunk.first + r;
    float* row = scores + r * kChunkTokens;
    for (int64_t j = 0; j <= i; ++j) row[j] *= chunk.decay[i - j];
    for (int64_t j = i + 1; j < keys; ++j) row[j] = 0.0f;
  }
  gemm(Operands<float>{scores, kChunkTokens, chunk.v, d, keys}, chunk.rows, d, [&](int64_t r, int64_t n, auto sum) {
    const auto carried = load_as<decltype(sum)>(from_state + r * d + n);
    const auto decay = broadcast_as<decltype(sum)>(chunk.decay[chunk.first + r + 1]);
    store(chunk.out + r * chunk.out_stride + n, fma(decay, carried, sum));
  });
}

void chunk_commit(const ChunkCommit& chunk) {
  const int64_t d = chunk.head_dim;
  for (int64_t a = 0; a < d; ++a) {
    const float* k = chunk.k_columns + a * kChunkTokens;
    float* weighted = chunk.weighted + a * kChunkTokens;
    for (int64_t j = 0; j < kChunkTokens; ++j) weighted[j] = k[j] * chunk.decay[kChunkTokens - 1 - j];
  }
  gemm(Operands<float>{chunk.weighted, kChunkTokens, chunk.v, d, kChunkTokens}, d, d,
       [&](int64_t a, int64_t b, auto sum) {
         const auto before = load_as<decltype(sum)>(chunk.state + a * d + b);
         const auto decay = broadcast_as<decltype(sum)>(chunk.decay[kChunkTokens]);
         store(chunk.next_state + a * d + b, fma(decay, before, sum));
       });
}

}  // namespace
}  // namespace ringside::cpu
