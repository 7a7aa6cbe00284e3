// Owns: the angles of rotary position embedding (specification section 3.3); attention_kernels.h turns heads by them.
#pragma once

#include <cstdint>

namespace ringside::cpu {

// cos and sin of float(position) * inv_freq[j], the product rounded to fp32 as every reference does.
void rope_angles(int64_t position, const float* inv_freq, int64_t half, float* cosines, float* sines);

}  // namespace ringside::cpu
