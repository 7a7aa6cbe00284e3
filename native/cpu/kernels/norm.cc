// Owns: the one order in which squares are added: sixteen strided sums, then pairs of them.
#include "cpu/kernels/norm.h"

#include <cmath>

namespace ringside::cpu {

void rms_norm(const float* x, const float* weight, float eps, int64_t count, float* out) {
  constexpr int kSums = 16;
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int lane = 0; lane < kSums; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  }
  for (int lane = 0; i < count; ++i, ++lane) sums[lane] += x[i] * x[i];
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  const float inverse = 1.0f / std::sqrt(sums[0] / static_cast<float>(count) + eps);
  for (int64_t c = 0; c < count; ++c) out[c] = x[c] * inverse * weight[c];
}

}  // namespace ringside::cpu
