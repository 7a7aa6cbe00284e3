// Owns: the kernels for ARM's SMMLA, which multiplies eight columns of two rows and two outputs at once. One row alone
// goes through SDOT, which every machine with SMMLA has; all but the coded product are NEON's.
#include "cpu/kernels/kernels.h"

#if defined(RS_NEON) && defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)

#include "cpu/kernels/matmul_coded_sdot.h"

namespace ringside::cpu {
namespace {

// Eight columns of outputs (0, 1) and of outputs (2, 3) from the quads of four outputs.
struct OutputPairs {
  int8x16_t pairs[2];
};

RS_INLINE OutputPairs zip_quads(uint8x16_t even, uint8x16_t odd) {
  const uint32x4_t a = vreinterpretq_u32_u8(even);
  const uint32x4_t b = vreinterpretq_u32_u8(odd);
  return {{vreinterpretq_s8_u32(vzip1q_u32(a, b)), vreinterpretq_s8_u32(vzip2q_u32(a, b))}};
}

template <PackedFormat kFormat>
RS_INLINE OutputPairs load_pairs(const uint8_t* codes) {
  const uint8x16_t first = vld1q_u8(codes);
  if constexpr (kFormat == PackedFormat::kQ8) return zip_quads(first, vld1q_u8(codes + kQuadBytes));
  return zip_quads(vandq_u8(first, vdupq_n_u8(15)), vshrq_n_u8(first, 4));
}

struct SmmlaMachine {
  static constexpr int kMostRows = 8;
  // Sixteen sums of two rows and two outputs; one row: see dot.
  static constexpr int vecs(int rows) { return rows == 1 ? SdotMachine::vecs(1) : kTileVecs / rows; }

  static constexpr int64_t kProducts = 32;
  RS_INLINE int32x4_t add_products(int32x4_t sums, int8x16_t a, int8x16_t b) { return vmmlaq_s32(sums, a, b); }

  template <PackedFormat kFormat, int kRows, int kVecs>
  RS_INLINE void dot(const uint8_t* codes, const int8_t* x, int64_t x_stride, int64_t columns,
                     int32x4_t (&dots)[kRows][kVecs]) {
    if constexpr (kRows == 1) {
      SdotMachine::dot<kFormat>(codes, x, x_stride, columns, dots);
    } else {
      dot_pairs<kFormat>(codes, x, x_stride, columns, dots);
    }
  }

  template <PackedFormat kFormat, int kRows, int kVecs>
  RS_INLINE void dot_pairs(const uint8_t* codes, const int8_t* x, int64_t x_stride, int64_t columns,
                           int32x4_t (&dots)[kRows][kVecs]) {
    constexpr int kPairs = kRows / 2;
    constexpr int64_t kStepBytes = kFormat == PackedFormat::kQ8 ? 2 * kQuadBytes : kQuadBytes;
    int32x4_t sums[kPairs][kVecs][2];
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sums[p][v][0] = sums[p][v][1] = vdupq_n_s32(0);
    }
    for (int64_t k = 0; k < columns; k += 8, x += 8, codes += kStepBytes) {
      int8x16_t values[kPairs];
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) {
        const int8_t* from = x + 2 * p * x_stride;
        values[p] = vcombine_s8(vld1_s8(from), vld1_s8(from + x_stride));
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        const OutputPairs weights = load_pairs<kFormat>(codes + v * kCodeVecBytes);
#pragma GCC unroll 4
        for (int p = 0; p < kPairs; ++p) {
          sums[p][v][0] = vmmlaq_s32(sums[p][v][0], values[p], weights.pairs[0]);
          sums[p][v][1] = vmmlaq_s32(sums[p][v][1], values[p], weights.pairs[1]);
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        dots[2 * p][v] = vcombine_s32(vget_low_s32(sums[p][v][0]), vget_low_s32(sums[p][v][1]));
        dots[2 * p + 1][v] = vcombine_s32(vget_high_s32(sums[p][v][0]), vget_high_s32(sums[p][v][1]));
      }
    }
  }
};

}  // namespace

const Kernels* i8mm_kernels() {
  static const Kernels kKernels = [] {
    Kernels table = *neon_kernels();
    table.isa = "i8mm";
    table.matmul_coded = matmul_coded_arm<SmmlaMachine>;
    table.multiply_int8_peak = multiply_int8_peak_arm<SmmlaMachine>;
    return table;
  }();
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* i8mm_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
