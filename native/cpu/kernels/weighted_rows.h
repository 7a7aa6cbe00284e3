// Owns: the sums over experts: rows added to other rows.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

void add(const float* x, int64_t count, float* sum) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(sum + i, load(sum + i) + load(x + i));
  for (; i < count; ++i) sum[i] += x[i];
}

void add_weighted_rows(const float* y, const int32_t* rows, const float* weights, int64_t count, float* sums) {
  for (int64_t r = 0; r < count; ++r) {
    const Vec weight = broadcast(weights[r]);
    const float* from = y + r * kTileRows;
    float* to = sums + rows[r] * kTileRows;
    for (int64_t c = 0; c < kTileRows; c += kLanes) store(to + c, fma(weight, load(from + c), load(to + c)));
  }
}

}  // namespace
}  // namespace ringside::cpu
