// Owns: the 16-bit and 8-bit float formats of checkpoints, to and from fp32. For what reads and packs weights;
// the reference has its own, so that a mistake here shows.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace ringside {

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Nearest, ties to even. `value` must be finite; one beyond the largest bf16 becomes infinite.
inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

inline float f16_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = (bits >> 10) & 0x1F;
  const uint32_t fraction = bits & 0x3FF;
  if (exponent == 0) {
    // Zero and subnormals: fraction * 2^-24, exact in fp32.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide_exponent << 23) | (fraction << 13));
}

// e4m3fn: exponent bias 7, no infinity, NaN where all bits but the sign are set.
inline float fp8_to_float(uint8_t bits) {
  const uint32_t sign = uint32_t{bits & 0x80u} << 24;
  const uint32_t exponent = (bits >> 3) & 15;
  const uint32_t fraction = bits & 7;
  if ((bits & 0x7F) == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (exponent == 0) {
    // Zero and subnormals: fraction * 2^-9, exact in fp32.
    const float magnitude = static_cast<float>(fraction) * 0x1p-9f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 120) << 23) | (fraction << 20));
}

// Neither NaN nor infinite, all of them. `values` need not be aligned.
inline bool are_finite(const void* values, int64_t count) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, static_cast<const uint8_t*>(values) + i * 4, sizeof bits);
    bad |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}
inline bool are_finite_bf16(const void* values, int64_t count) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, static_cast<const uint8_t*>(values) + i * 2, sizeof bits);
    bad |= (bits & 0x7f80u) == 0x7f80u ? 1u : 0u;
  }
  return bad == 0;
}

}  // namespace ringside
