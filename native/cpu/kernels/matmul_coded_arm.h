// Owns: the product of int8 activations with one tile of a coded matrix on 64-bit ARM, apart from the integer products
// of a group, which each instruction set brings along: rows in blocks, groups ascending, and the chain over the groups.
// Must never: give other bits than matmul_coded.h with a fused multiply-add.
//
// A machine is a struct with
//   kMostRows                  rows that it likes to compute together: 1, 2, 4 or 8
//   vecs(rows)                 vectors of four outputs that it likes to compute together for so many rows
//   dot<kFormat, kRows, kVecs>(codes, x, x_stride, columns, dots)
//                              dots[row][vector] = Σ code · value over one group, from the first vector at `codes`;
//                              of kQ4 the codes as they are stored, 8 too high
//   add_products(sums, a, b)   its fastest instruction, of kProducts products, for the roofline
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

constexpr int kVecOutputs = 4;
constexpr int kTileVecs = kTileRows / kVecOutputs;
constexpr int kCodeVecBytes = 16;              // four outputs of a quad of columns, or of two quads in half bytes
constexpr int64_t kQuadBytes = 4 * kTileRows;  // the whole tile of the same columns

// One row waits for memory, and the hardware looks ahead no further than a page.
template <int kRows, int kVecs>
RS_INLINE void prefetch_codes(const uint8_t* codes) {
  constexpr int64_t kAheadBytes = 1024;
  if constexpr (kRows == 1) {
#pragma GCC unroll 4
    for (int at = 0; at < kVecs * kCodeVecBytes; at += 64) __builtin_prefetch(codes + kAheadBytes + at);
  }
}

struct CodedRows {
  const int8_t* values;
  int64_t stride;
  const float* scales;  // [rows, groups]
  const int32_t* sums;  // [rows, groups]
  int64_t groups;
  int64_t low_offset;
  float* y;
  int64_t y_stride;

  RS_INLINE CodedRows from(const CodedRows& rows, int64_t row) {
    CodedRows rest = rows;
    rest.values += row * rows.stride;
    rest.scales += row * rows.groups;
    rest.sums += row * rows.groups;
    rest.y += row * rows.y_stride;
    return rest;
  }
};

// y = fma(float(dot), weight scale * x scale, y), then the offsets, for one group of one row. The first group finds
// zeros in y.
template <PackedFormat kFormat, int kVecs>
RS_INLINE void add_group(const int32x4_t* dots, const float* scales, bool has_offsets, float x_scale, int32_t x_sum,
                         float* y) {
  const int32x4_t excess = vdupq_n_s32(kFormat == PackedFormat::kQ4 ? 8 * x_sum : 0);
  const float offset_factor = x_scale * static_cast<float>(x_sum);
#pragma GCC unroll 16
  for (int v = 0; v < kVecs; ++v) {
    const Vec dot = vcvtq_f32_s32(vsubq_s32(dots[v], excess));
    Vec sum = fma(dot, load(scales + v * kVecOutputs) * broadcast(x_scale), load(y + v * kVecOutputs));
    if (has_offsets) sum = fma(load(scales + kTileRows + v * kVecOutputs), broadcast(offset_factor), sum);
    store(y + v * kVecOutputs, sum);
  }
}

// dots[row][vector] over one group. Two-byte codes take a second pass, over weights that then lie in the nearest cache.
template <class Machine, PackedFormat kFormat, int kRows, int kVecs>
RS_INLINE void dot_codes(const uint8_t* codes, const CodedRows& rows, const int8_t* x, int64_t columns,
                         int32x4_t (&dots)[kRows][kVecs]) {
  Machine::template dot<kFormat, kRows, kVecs>(codes, x, rows.stride, columns, dots);
  if (rows.low_offset == 0) return;
  int32x4_t low[kRows][kVecs];
  Machine::template dot<kFormat, kRows, kVecs>(codes, x + rows.low_offset, rows.stride, columns, low);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) dots[r][v] = vaddq_s32(vshlq_n_s32(dots[r][v], 7), low[r][v]);
  }
}

template <class Machine, PackedFormat kFormat, int kRows>
RS_INLINE void multiply_coded_block(const PackedMatrix& w, const uint8_t* block, const CodedRows& rows) {
  constexpr int kVecs = Machine::vecs(kRows);
  const int64_t code_bytes = w.code_bytes();
  const int64_t block_bytes = w.block_bytes();
  for (int r = 0; r < kRows; ++r) {
    __builtin_memset(rows.y + r * rows.y_stride, 0, static_cast<unsigned long>(kTileRows) * sizeof(float));
  }
  for (int64_t group = 0; group < rows.groups; ++group, block += block_bytes) {
    const float* scales = reinterpret_cast<const float*>(block + code_bytes);
    for (int first = 0; first < kTileVecs; first += kVecs) {
      int32x4_t dots[kRows][kVecs];
      dot_codes<Machine, kFormat>(block + first * kCodeVecBytes, rows, rows.values + group * w.group_columns,
                                  w.group_columns, dots);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const int64_t at = r * rows.groups + group;
        add_group<kFormat, kVecs>(dots[r], scales + first * kVecOutputs, w.has_offsets, rows.scales[at], rows.sums[at],
                                  rows.y + r * rows.y_stride + first * kVecOutputs);
      }
    }
  }
}

// As many blocks of kRows rows as there are; the rest goes to blocks of half as many.
template <class Machine, PackedFormat kFormat, int kRows>
RS_INLINE void multiply_coded_rows(const PackedMatrix& w, const uint8_t* tile, const CodedRows& in, int64_t rows) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    multiply_coded_block<Machine, kFormat, kRows>(w, tile, CodedRows::from(in, row));
  }
  if constexpr (kRows > 1) {
    if (row < rows) multiply_coded_rows<Machine, kFormat, kRows / 2>(w, tile, CodedRows::from(in, row), rows - row);
  }
}

template <class Machine>
void matmul_coded_arm(const PackedMatrix& w, int64_t tile, const QuantizedRows& x, int64_t first_row, int64_t rows,
                      float* y, int64_t y_stride, uint8_t*, const uint8_t*) {
  const uint8_t* codes = w.tiles + tile * w.tile_bytes();
  CodedRows in = CodedRows::from({x.values, x.stride, x.scales, x.sums, x.groups, x.low_offset, y, 0}, first_row);
  in.y_stride = y_stride;
  if (w.format == PackedFormat::kQ8) {
    multiply_coded_rows<Machine, PackedFormat::kQ8, Machine::kMostRows>(w, codes, in, rows);
  } else {
    multiply_coded_rows<Machine, PackedFormat::kQ4, Machine::kMostRows>(w, codes, in, rows);
  }
}

template <class Machine>
int64_t multiply_int8_peak_arm(int64_t steps, int32_t* sink) {
  constexpr int kChains = 16;  // more than latency times throughput of every core we know
  int32x4_t sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = vdupq_n_s32(c);
  const int8x16_t a = vdupq_n_s8(static_cast<int8_t>(sink[0]));
  const int8x16_t b = vdupq_n_s8(static_cast<int8_t>(sink[0] | 1));
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) sums[c] = Machine::add_products(sums[c], a, b);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = vaddq_s32(sums[0], sums[c]);
  sink[0] = vaddvq_s32(sums[0]);
  return steps * kChains * Machine::kProducts;
}

}  // namespace
}  // namespace ringside::cpu
