// Owns: the integer products of a group with SDOT, which multiplies four columns of four outputs at once.
#pragma once

#include "cpu/kernels/matmul_coded_arm.h"

namespace ringside::cpu {
namespace {

struct SdotMachine {
  static constexpr int kMostRows = 4;
  // Sixteen sums in 32 registers: enough to hide the latency of each.
  static constexpr int vecs(int rows) { return kTileVecs / rows; }

  static constexpr int64_t kProducts = 16;
  RS_INLINE int32x4_t add_products(int32x4_t sums, int8x16_t a, int8x16_t b) { return vdotq_s32(sums, a, b); }

  template <PackedFormat kFormat, int kRows, int kVecs>
  RS_INLINE void dot(const uint8_t* codes, const int8_t* x, int64_t x_stride, int64_t columns,
                     int32x4_t (&dots)[kRows][kVecs]) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVecs; ++v) dots[r][v] = vdupq_n_s32(0);
    }
    for (int64_t k = 0; k < columns; k += 16, x += 16) {
      int8x16_t values[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) values[r] = vld1q_s8(x + r * x_stride);
      if constexpr (kFormat == PackedFormat::kQ8) {
        add_bytes<0>(codes, values, dots);
        add_bytes<1>(codes + kQuadBytes, values, dots);
        add_bytes<2>(codes + 2 * kQuadBytes, values, dots);
        add_bytes<3>(codes + 3 * kQuadBytes, values, dots);
        codes += 4 * kQuadBytes;
      } else {
        add_halves<0>(codes, values, dots);
        add_halves<2>(codes + kQuadBytes, values, dots);
        codes += 2 * kQuadBytes;
      }
    }
  }

  template <int kQuad, int kRows, int kVecs>
  RS_INLINE void add_bytes(const uint8_t* codes, const int8x16_t (&values)[kRows], int32x4_t (&dots)[kRows][kVecs]) {
    prefetch_codes<kRows, kVecs>(codes);
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      const int8x16_t weights = vreinterpretq_s8_u8(vld1q_u8(codes + v * kCodeVecBytes));
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) dots[r][v] = vdotq_laneq_s32(dots[r][v], weights, values[r], kQuad);
    }
  }

  template <int kQuad, int kRows, int kVecs>
  RS_INLINE void add_halves(const uint8_t* codes, const int8x16_t (&values)[kRows], int32x4_t (&dots)[kRows][kVecs]) {
    prefetch_codes<kRows, kVecs>(codes);
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) {
      const uint8x16_t both = vld1q_u8(codes + v * kCodeVecBytes);
      const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
      const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        dots[r][v] = vdotq_laneq_s32(dots[r][v], low, values[r], kQuad);
        dots[r][v] = vdotq_laneq_s32(dots[r][v], high, values[r], kQuad + 1);
      }
    }
  }
};

}  // namespace
}  // namespace ringside::cpu
