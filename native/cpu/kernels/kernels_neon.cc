// Owns: the kernels for NEON, which every 64-bit ARM has.
#include "cpu/kernels/kernels.h"

#if defined(RS_NEON)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"
#include "cpu/kernels/matmul_coded_arm.h"

namespace ringside::cpu {
namespace {

// Integer products of a group by multiplying bytes to 16 bits. A vector of 16 bits holds two columns of each of two
// outputs, so four outputs take two of them.
struct NeonMachine {
  static constexpr int kMostRows = 2;
  static constexpr int vecs(int rows) { return 8 / rows; }  // sixteen vectors of sums in 32 registers

  static constexpr int64_t kProducts = 8;
  RS_INLINE int32x4_t add_products(int32x4_t sums, int8x16_t a, int8x16_t b) {
    return vreinterpretq_s32_s16(vmlal_s8(vreinterpretq_s16_s32(sums), vget_low_s8(a), vget_low_s8(b)));
  }

  template <PackedFormat kFormat, int kRows, int kVecs>
  RS_INLINE void dot(const uint8_t* codes, const int8_t* x, int64_t x_stride, int64_t columns,
                     int32x4_t (&dots)[kRows][kVecs]) {
    if constexpr (kFormat == PackedFormat::kQ8) {
      dot_bytes(codes, x, x_stride, columns, dots);
    } else {
      dot_halves(codes, x, x_stride, columns, dots);
    }
  }

  // The same four values for two outputs.
  RS_INLINE int8x8_t quad(const int8_t* x) {
    int32_t values;
    __builtin_memcpy(&values, x, sizeof values);
    return vreinterpret_s8_s32(vdup_n_s32(values));
  }

  template <int kRows, int kVecs>
  RS_INLINE void dot_bytes(const uint8_t* codes, const int8_t* x, int64_t x_stride, int64_t columns,
                           int32x4_t (&dots)[kRows][kVecs]) {
    int32x4_t sums[kRows][kVecs][2];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sums[r][v][0] = sums[r][v][1] = vdupq_n_s32(0);
    }
    for (int64_t k = 0; k < columns; k += 8, x += 8, codes += 2 * kQuadBytes) {
      prefetch_codes<kRows, kVecs>(codes);
      prefetch_codes<kRows, kVecs>(codes + kQuadBytes);
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        const int8x16_t first = vreinterpretq_s8_u8(vld1q_u8(codes + v * kCodeVecBytes));
        const int8x16_t second = vreinterpretq_s8_u8(vld1q_u8(codes + kQuadBytes + v * kCodeVecBytes));
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) {
          const int8x8_t x_first = quad(x + r * x_stride);
          const int8x8_t x_second = quad(x + r * x_stride + 4);
          // Two products fit into 16 bits: 2 * 128 * 127 is below 2¹⁵.
          int16x8_t low = vmull_s8(vget_low_s8(first), x_first);
          int16x8_t high = vmull_s8(vget_high_s8(first), x_first);
          low = vmlal_s8(low, vget_low_s8(second), x_second);
          high = vmlal_s8(high, vget_high_s8(second), x_second);
          sums[r][v][0] = vpadalq_s16(sums[r][v][0], low);
          sums[r][v][1] = vpadalq_s16(sums[r][v][1], high);
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) dots[r][v] = vpaddq_s32(sums[r][v][0], sums[r][v][1]);
    }
  }

  template <int kRows, int kVecs>
  RS_INLINE void dot_halves(const uint8_t* codes, const int8_t* x, int64_t x_stride, int64_t columns,
                            int32x4_t (&dots)[kRows][kVecs]) {
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) dots[r][v] = vdupq_n_s32(0);
    }
    // A lane gains two products for eight columns, and 16 * 15 * 127 is below 2¹⁵.
    constexpr int64_t kColumnsInHalfWords = 64;
    for (int64_t start = 0; start < columns; start += kColumnsInHalfWords) {
      const int64_t end = columns - start < kColumnsInHalfWords ? columns : start + kColumnsInHalfWords;
      int16x8_t sums[kRows][kVecs][2];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) sums[r][v][0] = sums[r][v][1] = vdupq_n_s16(0);
      }
      for (int64_t k = start; k < end; k += 8, x += 8, codes += kQuadBytes) add_halves(codes, x, x_stride, sums);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) {
          const int32x4_t sum = vpaddq_s32(vpaddlq_s16(sums[r][v][0]), vpaddlq_s16(sums[r][v][1]));
          dots[r][v] = vaddq_s32(dots[r][v], sum);
        }
      }
    }
  }

  // Eight columns.
  template <int kRows, int kVecs>
  RS_INLINE void add_halves(const uint8_t* codes, const int8_t* x, int64_t x_stride,
                            int16x8_t (&sums)[kRows][kVecs][2]) {
    prefetch_codes<kRows, kVecs>(codes);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      const uint8x16_t both = vld1q_u8(codes + v * kCodeVecBytes);
      const int8x16_t first = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
      const int8x16_t second = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const int8x8_t x_first = quad(x + r * x_stride);
        const int8x8_t x_second = quad(x + r * x_stride + 4);
        sums[r][v][0] = vmlal_s8(sums[r][v][0], vget_low_s8(first), x_first);
        sums[r][v][1] = vmlal_s8(sums[r][v][1], vget_high_s8(first), x_first);
        sums[r][v][0] = vmlal_s8(sums[r][v][0], vget_low_s8(second), x_second);
        sums[r][v][1] = vmlal_s8(sums[r][v][1], vget_high_s8(second), x_second);
      }
    }
  }
};

}  // namespace

const Kernels* neon_kernels() {
  static const Kernels kKernels = [] {
    Kernels table = kernel_table("neon", neon_attention);
    table.matmul_coded = matmul_coded_arm<NeonMachine>;
    table.multiply_int8_peak = multiply_int8_peak_arm<NeonMachine>;
    return table;
  }();
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* neon_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
