// Owns: root-mean-square normalisation in fp32, with the one order in which squares are added on every instruction set:
// 64 strided sums, then pairs of them.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kSquareSums = 64;

// 1 / sqrt(mean(x²) + eps)
RS_INLINE float inverse_rms(const float* x, float eps, int64_t count) {
  constexpr int kVecs = kSquareSums / kLanes;
  Vec sums[kVecs] = {};
  int64_t i = 0;
  for (; i + kSquareSums <= count; i += kSquareSums) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      const Vec value = load(x + i + v * kLanes);
      sums[v] += value * value;
    }
  }
  float lanes[kSquareSums];
  for (int v = 0; v < kVecs; ++v) store(lanes + v * kLanes, sums[v]);
  for (int64_t lane = 0; i < count; ++i, ++lane) lanes[lane] += x[i] * x[i];
  for (int64_t half = kSquareSums / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return 1.0f / __builtin_sqrtf(lanes[0] / static_cast<float>(count) + eps);
}

RS_INLINE void scale_by_weight(const float* x, float inverse, const float* weight, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(x + i) * broadcast(inverse) * load(weight + i));
  for (; i < count; ++i) out[i] = x[i] * inverse * weight[i];
}

void rms_norm(const float* x, const float* weight, float eps, int64_t count, float* out) {
  scale_by_weight(x, inverse_rms(x, eps, count), weight, count, out);
}

}  // namespace
}  // namespace ringside::cpu
