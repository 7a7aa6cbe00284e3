// Owns: rotary position embedding (specification section 3.3), rotate-half pairing.
#pragma once

#include <cstdint>

namespace ringside::cpu {

// cos and sin of float(position) * inv_freq[j], the product rounded to fp32 as every reference does.
void rope_angles(int64_t position, const float* inv_freq, int64_t half, float* cosines, float* sines);

// Rotates the channel pairs (j, j + half) of one head.
void rotate(float* x, const float* cosines, const float* sines, int64_t half);

}  // namespace ringside::cpu
