// Owns: the codes and the scale of one group of weights. Private to model/.
// Must never: know a file or a layout.
#pragma once

#include <cstdint>
#include <span>

namespace ringside {

// The value of a code is code * scale.
struct GroupFit {
  uint16_t scale_bits = 0;     // bf16, as it will be stored
  double error_squares = 0.0;  // sum of (weight - value)²
};

inline constexpr size_t kFitLanes = 16;  // a group is a multiple of this

// The nearest codes -127..127 for the scale that spans the largest weight: at 8 bits nothing else gains much.
GroupFit fit_8_bits(std::span<const float> weights, int8_t* codes);

// Codes -8..7 and a scale, of either sign, that make the squared error small: many scales are tried, and from the best
// one rounding and the least-squares scale of the rounded codes take turns until neither gains.
GroupFit fit_4_bits(std::span<const float> weights, int8_t* codes);

}  // namespace ringside
