// Owns: root-mean-square normalisation in fp32.
#pragma once

#include <cstdint>

namespace ringside::cpu {

// out = x / sqrt(mean(x²) + eps) * weight over `count` channels; `out` may be `x`.
void rms_norm(const float* x, const float* weight, float eps, int64_t count, float* out);

}  // namespace ringside::cpu
