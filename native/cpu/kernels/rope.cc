// Owns: the angles.
#include "cpu/kernels/rope.h"

#include <cmath>

namespace ringside::cpu {

void rope_angles(int64_t position, const float* inv_freq, int64_t half, float* cosines, float* sines) {
  for (int64_t j = 0; j < half; ++j) {
    const float angle = static_cast<float>(position) * inv_freq[j];
    // Double precision reduces large angles exactly enough; the tables are a small part of a step.
    cosines[j] = static_cast<float>(std::cos(static_cast<double>(angle)));
    sines[j] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

}  // namespace ringside::cpu
