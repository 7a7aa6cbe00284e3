// Owns: the product of int8 activations with one tile of a coded matrix on x86: rows in blocks, groups ascending, the
// chain over the groups. The integer products of a group come from dot_products_x86.h.
// Must never: give other bits than matmul_coded.h with a fused multiply-add.
#pragma once

#include "cpu/kernels/dot_products_x86.h"
#if !defined(__AVX512F__) && !defined(__AVXVNNI__)
#include "cpu/kernels/dot_products_avx2.h"
#endif
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

// So many rows pass a group of the weights together, while it is in the first-level cache and the sums too.
constexpr int64_t kRowsPerPass = 64;

// Rows of x with their sums in y, as seen by one group.
struct GroupRows {
  const int8_t* values;
  int64_t stride;
  int64_t low_offset;
  const float* scales;  // of row r at r * groups
  const int32_t* sums;
  int64_t groups;
  float* y;
  int64_t y_stride;
};

RS_INLINE GroupRows rows_from(const GroupRows& in, int64_t row) {
  GroupRows from = in;
  from.values += row * in.stride;
  from.scales += row * in.groups;
  from.sums += row * in.groups;
  from.y += row * in.y_stride;
  return from;
}

// y = fma(float(dot), weight scale * x scale, y), then the offset's product, for some vectors of outputs of one row.
template <int kVecs>
RS_INLINE void add_dots(const Ints* dots, int32_t excess, const float* scales, bool has_offsets, float x_scale,
                        int32_t x_sum, float* y) {
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    const Vec dot = to_floats(subtract(dots[v], broadcast_ints(excess)));
    Vec sum = fma(dot, load(scales + v * kLanes) * broadcast(x_scale), load(y + v * kLanes));
    if (has_offsets) {
      const Vec values = broadcast(x_scale * static_cast<float>(x_sum));
      sum = fma(load(scales + kTileRows + v * kLanes), values, sum);
    }
    store(y + v * kLanes, sum);
  }
}

template <class Dots, int kRows, Calls kCalls>
RS_INLINE void multiply_group_rows(const PackedMatrix& w, const uint8_t* codes, const NextTile& next,
                                   const GroupRows& in) {
  constexpr int kVecs = Dots::vecs_of_rows(kRows);
  const float* scales = reinterpret_cast<const float*>(codes + w.code_bytes());
#pragma GCC unroll 1
  for (int first = 0; first < kTileRows / kLanes; first += kVecs) {
    const uint8_t* from = codes + first * kVecBytes;
    const NextTile next_from = {next.at + first * kVecBytes / 64 * next.stream_bytes, next.stream_bytes};
    Ints dots[kRows][kVecs];
    Dots::template dot_products<kRows, kVecs, kCalls>(from, next_from, in.values, in.stride, w.group_columns, dots);
    if (in.low_offset != 0) {
      Ints low[kRows][kVecs];
      Dots::template dot_products<kRows, kVecs, Calls::kNone>(from, next_from, in.values + in.low_offset, in.stride,
                                                              w.group_columns, low);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) dots[r][v] = add(times_128(dots[r][v]), low[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int32_t x_sum = in.sums[r * in.groups];
      add_dots<kVecs>(dots[r], Dots::kExcess * x_sum, scales + first * kLanes, w.has_offsets, in.scales[r * in.groups],
                      x_sum, in.y + r * in.y_stride + first * kLanes);
    }
  }
  if (kCalls == Calls::kNone || kCalls == Calls::kOdd) return;
  for (int64_t at = w.code_bytes(); at < w.block_bytes(); at += kQuadBytes) {
#pragma GCC unroll 4
    for (int64_t line = 0; line < 4; ++line) call_line({next.at + at / 4, next.stream_bytes}, line);
  }
}

// All rows of one group, in blocks. Only the first to pass it call for what is read next, and a last single one.
template <class Dots>
RS_INLINE void multiply_group(const PackedMatrix& w, const uint8_t* tile, const NextTile& next, const GroupRows& in,
                              int64_t rows) {
  int64_t row = 0;
  if (Dots::kSharesCalls && rows >= 2 * kMostRows) {
    multiply_group_rows<Dots, kMostRows, Calls::kEven>(w, tile, next, in);
    multiply_group_rows<Dots, kMostRows, Calls::kOdd>(w, tile, next, rows_from(in, kMostRows));
    row = 2 * kMostRows;
  } else if (rows >= kMostRows) {
    multiply_group_rows<Dots, kMostRows, Calls::kAll>(w, tile, next, in);
    row = kMostRows;
  } else if (rows >= 2) {
    multiply_group_rows<Dots, 2, Calls::kAll>(w, tile, next, in);
    row = 2;
  }
  for (; row + kMostRows <= rows; row += kMostRows) {
    multiply_group_rows<Dots, kMostRows, Calls::kNone>(w, tile, next, rows_from(in, row));
  }
  for (; row + 2 <= rows; row += 2) multiply_group_rows<Dots, 2, Calls::kNone>(w, tile, next, rows_from(in, row));
  if (row < rows) multiply_group_rows<Dots, 1, Calls::kAll>(w, tile, next, rows_from(in, row));
}

// The rows of one group with the two bytes of each input joined, in `words`.
template <class Dots>
RS_INLINE GroupRows joined_rows(const GroupRows& in, int64_t rows, int64_t columns, uint8_t* words) {
  GroupRows joined = in;
  joined.values = reinterpret_cast<const int8_t*>(words);
  joined.stride = 2 * columns;
  joined.low_offset = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int8_t* values = in.values + r * in.stride;
    Dots::join_bytes(values, values + in.low_offset, columns, reinterpret_cast<int16_t*>(words + r * joined.stride));
  }
  return joined;
}

template <class Dots>
void multiply_pass(const PackedMatrix& w, const uint8_t* tile, const uint8_t* next_tile, const GroupRows& rows_in,
                   int64_t rows, [[maybe_unused]] uint8_t* scratch) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < kTileRows; n += kLanes) store(rows_in.y + r * rows_in.y_stride + n, Vec{});
  }
  GroupRows in = rows_in;
  const int64_t block_bytes = w.block_bytes();
  // Where nothing is known to follow, the later quarters of the tile itself are called for early.
  NextTile next = {next_tile == nullptr ? tile : next_tile, w.tile_bytes() / 4};
  for (int64_t group = 0; group < rows_in.groups; ++group, tile += block_bytes) {
    GroupRows of_group = in;
    if constexpr (Dots::kJoinsBytes) of_group = joined_rows<Dots>(in, rows, w.group_columns, scratch);
    multiply_group<Dots>(w, tile, next, of_group, rows);
    in.values += w.group_columns;
    ++in.scales;
    ++in.sums;
    next.at += block_bytes / 4;
  }
}

RS_INLINE auto pass_for(const PackedMatrix& w, [[maybe_unused]] bool has_two_bytes) {
#if !defined(__AVX512F__) && !defined(__AVXVNNI__)
  if (w.format == PackedFormat::kQ4) {
    return has_two_bytes ? multiply_pass<WordDots<PackedFormat::kQ4>> : multiply_pass<PairDots>;
  }
  if (has_two_bytes) return multiply_pass<WordDots<PackedFormat::kQ8>>;
#endif
  return w.format == PackedFormat::kQ8 ? multiply_pass<ByteDots<PackedFormat::kQ8>>
                                       : multiply_pass<ByteDots<PackedFormat::kQ4>>;
}

void matmul_coded(const PackedMatrix& w, int64_t tile, const QuantizedRows& x, int64_t first_row, int64_t rows,
                  float* y, int64_t y_stride, uint8_t* scratch, const uint8_t* next) {
  static_assert(kRowsPerPass * 128 * 2 <= kCodedScratchBytes);  // words of a group's inputs
  const uint8_t* codes = w.tile_at(tile);
  const GroupRows all = {x.values, x.stride, x.low_offset, x.scales, x.sums, x.groups, y - first_row * y_stride,
                         y_stride};
  const auto multiply = pass_for(w, x.low_offset != 0);
  for (int64_t row = 0; row < rows; row += kRowsPerPass) {
    const int64_t count = rows - row < kRowsPerPass ? rows - row : kRowsPerPass;
    multiply(w, codes, next, rows_from(all, first_row + row), count, scratch);
  }
}

}  // namespace
}  // namespace ringside::cpu
