// Owns: the product of int8 activations with one tile of a coded matrix, in the arithmetic that every instruction set
// shares: integers inside a group, one chain of multiply-adds over the groups.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

// dots[n] = Σ code[n] value over one group.
RS_INLINE void dot_group(const PackedMatrix& w, const uint8_t* codes, const int8_t* x, int32_t* dots) {
  for (int64_t n = 0; n < kTileRows; ++n) dots[n] = 0;
  if (w.format == PackedFormat::kQ8) {
    for (int64_t k = 0; k < w.group_columns; k += 4, codes += 4 * kTileRows) {
      for (int64_t n = 0; n < kTileRows; ++n) {
        for (int64_t b = 0; b < 4; ++b) dots[n] += static_cast<int8_t>(codes[n * 4 + b]) * x[k + b];
      }
    }
    return;
  }
  for (int64_t k = 0; k < w.group_columns; k += 8, codes += 4 * kTileRows) {
    for (int64_t n = 0; n < kTileRows; ++n) {
      for (int64_t b = 0; b < 4; ++b) {
        const int32_t code = codes[n * 4 + b];
        dots[n] += ((code & 15) - 8) * x[k + b] + ((code >> 4) - 8) * x[k + 4 + b];
      }
    }
  }
}

void matmul_coded(const PackedMatrix& w, int64_t tile, const QuantizedRows& x, int64_t first_row, int64_t rows,
                  float* y, int64_t y_stride, uint8_t*, const uint8_t*) {
  const int64_t groups = w.group_count();
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = first_row + r;
    float* out = y + r * y_stride;
    for (int64_t n = 0; n < kTileRows; ++n) out[n] = 0.0f;
    for (int64_t group = 0; group < groups; ++group) {
      const uint8_t* codes = w.tiles + tile * w.tile_bytes() + group * w.block_bytes();
      const float* scales = reinterpret_cast<const float*>(codes + w.code_bytes());
      const float x_scale = x.scales[row * groups + group];
      int32_t dots[kTileRows];
      const int8_t* values = x.values + row * x.stride + group * w.group_columns;
      dot_group(w, codes, values, dots);
      if (x.low_offset != 0) {
        int32_t low[kTileRows];
        dot_group(w, codes, values + x.low_offset, low);
        for (int64_t n = 0; n < kTileRows; ++n) dots[n] = dots[n] * 128 + low[n];
      }
      for (int64_t n = 0; n < kTileRows; ++n) out[n] = fma(static_cast<float>(dots[n]), scales[n] * x_scale, out[n]);
      if (!w.has_offsets) continue;
      const float x_sum = x_scale * static_cast<float>(x.sums[row * groups + group]);
      for (int64_t n = 0; n < kTileRows; ++n) out[n] = fma(scales[kTileRows + n], x_sum, out[n]);
    }
  }
}

}  // namespace
}  // namespace ringside::cpu
