// Owns: the product of many rows of int8 activations with one tile of a coded matrix in AMX tiles of 16 x 16 sums.
// Must never: give other bits than matmul_coded_x86.h, which does the rows that would leave most of a tile empty; rely
// on a tile configuration that other code left, or leave one behind.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/matmul_coded_x86.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kAmxRows = 16;            // of a tile
constexpr int64_t kAmxFewestRows = 4;       // below, the vector kernel is faster than tiles that are mostly empty
constexpr int64_t kAmxFewestRowsOfQ4 = 12;  // widening the codes must pay too
constexpr int64_t kAmxPassTiles = 4;        // of rows pass a group of the weights while these, x and the sums are near
constexpr int64_t kAmxOutputs = 32;         // whose weights stay in tiles while rows pass
constexpr int64_t kDotTileInts = kAmxRows * 16;

// The intrinsics do not tell the compiler which memory they read and write.
RS_INLINE void settle_tile_memory() { asm volatile("" ::: "memory"); }

// Sums in tiles 0 and 1, x in 2 and 3, weights in 4 to 7. `depth`: columns that one multiplication takes, 32 or 64.
RS_INLINE void configure_tiles(int64_t rows, int64_t depth) {
  struct alignas(64) {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } configuration = {};
  configuration.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    const bool is_x = tile == 2 || tile == 3;
    configuration.row_bytes[tile] = static_cast<uint16_t>(is_x ? depth : 64);
    configuration.rows[tile] = static_cast<uint8_t>(tile < 4 ? rows : depth / 4);
  }
  settle_tile_memory();
  _tile_loadconfig(&configuration);
}

// The codes of 32 outputs and one group of kQ4 as signed bytes in the layout of kQ8, [quads, 32 outputs, 4].
RS_INLINE void widen_halves(const uint8_t* codes, int64_t columns, uint8_t* to) {
  const __m512i eight = _mm512_set1_epi8(8);
  for (int64_t k = 0; k < columns; k += 8, codes += kQuadBytes, to += kQuadBytes) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const __m512i both = load_codes(codes + v * 64);
      _mm512_store_si512(to + v * 64, _mm512_sub_epi8(low_halves(both), eight));
      _mm512_store_si512(to + kQuadBytes / 2 + v * 64, _mm512_sub_epi8(high_halves(both), eight));
    }
  }
}

// What the first rows of a call do of `next` at one step, half a block: L2 keeps it, the nearest cache is full of sums.
RS_INLINE void call_half_block(const NextTile& next, int64_t lines) {
  for (int64_t line = 0; line < lines; ++line) {
    __builtin_prefetch(next.at + line / 4 * 64 + line % 4 * next.stream_bytes, 0, 2);
  }
}

// Dots of up to 16 rows and one group, on their way into the sums.
struct DotTiles {
  const int32_t* dots;    // two tiles of 16 outputs, or four
  const float* scales;    // of the 32 outputs; their offsets 64 floats on
  const float* x_scales;  // of row r at r * groups
  const int32_t* x_sums;
  float* sums;  // of row r at r * 64; null: nothing is on the way
};

// Of wide codes, the dots of the low values lie two tiles on.
template <bool kIsWide>
RS_INLINE Ints dots_at(const int32_t* dots) {
  const Ints whole = _mm512_load_si512(dots);
  if constexpr (!kIsWide) return whole;
  return add(times_128(whole), _mm512_load_si512(dots + 2 * kDotTileInts));
}

// sums = fma(float(dot), weight scale * x scale, sums), then the offsets.
template <bool kIsWide>
RS_INLINE void add_dot_tiles(const DotTiles& from, int64_t rows, int64_t groups, bool has_offsets) {
  const Vec scales[2] = {load(from.scales), load(from.scales + 16)};
  const int32_t* dots = from.dots;
  const float* x_scales = from.x_scales;
  float* sums = from.sums;
#pragma GCC unroll 4
  for (int64_t r = 0; r < rows; ++r, dots += 16, x_scales += groups, sums += kTileRows) {
    const Vec x_scale = broadcast(*x_scales);
    const Vec first = to_floats(dots_at<kIsWide>(dots));
    const Vec second = to_floats(dots_at<kIsWide>(dots + kDotTileInts));
    store(sums, fma(first, scales[0] * x_scale, load(sums)));
    store(sums + 16, fma(second, scales[1] * x_scale, load(sums + 16)));
  }
  if (!has_offsets) return;
  const Vec offsets[2] = {load(from.scales + kTileRows), load(from.scales + kTileRows + 16)};
  for (int64_t r = 0; r < rows; ++r) {
    const Vec x_sum = broadcast(from.x_scales[r * groups] * static_cast<float>(from.x_sums[r * groups]));
    sums = from.sums + r * kTileRows;
    store(sums, fma(offsets[0], x_sum, load(sums)));
    store(sums + 16, fma(offsets[1], x_sum, load(sums + 16)));
  }
}

// The weights of one group and 32 outputs into tiles 4 to 7.
template <int kSteps>
RS_INLINE void load_weight_tiles(const uint8_t* codes, int64_t stride, int64_t depth) {
  _tile_loadd(4, codes, stride);
  _tile_loadd(5, codes + 64, stride);
  if constexpr (kSteps == 2) {
    _tile_loadd(6, codes + depth / 4 * stride, stride);
    _tile_loadd(7, codes + depth / 4 * stride + 64, stride);
  }
}

// Dots of a tile of rows with these weights, into tiles 0 and 1.
template <int kSteps>
RS_INLINE void multiply_tiles(const int8_t* x, int64_t x_stride) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_loadd(2, x, x_stride);
  if constexpr (kSteps == 2) _tile_loadd(3, x + 64, x_stride);
  _tile_dpbssd(0, 2, 4);
  _tile_dpbssd(1, 2, 5);
  if constexpr (kSteps == 2) {
    _tile_dpbssd(0, 3, 6);
    _tile_dpbssd(1, 3, 7);
  }
}

RS_INLINE void store_dots(int32_t* dots) {
  _tile_stored(0, dots, 64);
  _tile_stored(1, dots + kDotTileInts, 64);
}

struct AmxScratch {
  float* sums;     // [4 tiles, 16 rows, 64]
  int32_t* dots;   // two times four tiles
  uint8_t* codes;  // kQ4: the codes of two steps as signed bytes
};

RS_INLINE AmxScratch amx_scratch(uint8_t* bytes) {
  constexpr int64_t kLargestGroup = 128;
  static_assert(kAmxPassTiles * kAmxRows * kTileRows * 4 + 8 * kDotTileInts * 4 + 2 * kLargestGroup * kAmxOutputs <=
                kCodedScratchBytes);
  float* sums = reinterpret_cast<float*>(bytes);
  int32_t* dots = reinterpret_cast<int32_t*>(sums + kAmxPassTiles * kAmxRows * kTileRows);
  return {sums, dots, reinterpret_cast<uint8_t*>(dots + 8 * kDotTileInts)};
}

// The rows of a call, cut into tiles of equal height; the last one begins early rather than be shorter, and does rows
// once more, each time with the same sums.
struct RowTiles {
  int64_t count;
  int64_t height;
  int64_t rows;
  int64_t first_row(int64_t tile) const { return (tile + 1) * height <= rows ? tile * height : rows - height; }
};

RS_INLINE RowTiles row_tiles(int64_t rows) {
  const int64_t count = (rows + kAmxRows - 1) / kAmxRows;
  return {count, (rows + count - 1) / count, rows};
}

// At most four tiles of rows from `first_tile`. A group's codes are widened while the group before multiplies, so that
// they lie in the nearest cache; while the tiles of one step multiply, the dots of the step before are added to the
// sums.
template <int kSteps, bool kIsWide>
void multiply_amx_pass(const PackedMatrix& w, const uint8_t* tile, const QuantizedRows& x, int64_t first_row,
                       const RowTiles& tiles, int64_t first_tile, int64_t tile_count, NextTile next,
                       const AmxScratch& scratch) {
  const int64_t depth = w.group_columns / kSteps;
  const bool is_q4 = w.format == PackedFormat::kQ4;
  __builtin_memset(scratch.sums, 0, static_cast<unsigned long>(tile_count * kAmxRows * kTileRows) * sizeof(float));
  // A step is 32 outputs of one group.
  const int64_t steps = x.groups * (kTileRows / kAmxOutputs);
  const auto stored = [&](int64_t step) { return tile + step / 2 * w.block_bytes() + step % 2 * (4 * kAmxOutputs); };
  const auto widened = [&](int64_t step) { return scratch.codes + step % 2 * w.group_columns * kAmxOutputs; };
  // One step ahead: what was only just stored cannot be loaded into a tile before it has reached the cache.
  const auto widen = [&](int64_t step) {
    if (!is_q4 || step >= steps) return;
    widen_halves(stored(step), w.group_columns, widened(step));
    settle_tile_memory();
  };
  widen(0);
  DotTiles on_the_way = {};
  int64_t turn = 0;
  for (int64_t group = 0; group < x.groups; ++group) {
    const float* scales = reinterpret_cast<const float*>(tile + group * w.block_bytes() + w.code_bytes());
    for (int64_t output = 0; output < kTileRows; output += kAmxOutputs) {
      const int64_t step = group * 2 + output / kAmxOutputs;
      load_weight_tiles<kSteps>(is_q4 ? widened(step) : stored(step), is_q4 ? kQuadBytes / 2 : kQuadBytes, depth);
      widen(step + 1);
      if (first_tile == 0) {
        call_half_block(next, w.block_bytes() / 128);
        next.at += w.block_bytes() / 8;
      }
      for (int64_t t = 0; t < tile_count; ++t) {
        int32_t* dots = scratch.dots + turn * (kIsWide ? 4 : 2) * kDotTileInts;
        turn ^= 1;
        const int64_t row = first_row + tiles.first_row(first_tile + t);
        const int8_t* values = x.values + row * x.stride + group * w.group_columns;
        multiply_tiles<kSteps>(values, x.stride);
        // Read before this step's dots are stored: a load waits for an older store whose address differs in whole
        // pages.
        if (on_the_way.sums != nullptr) add_dot_tiles<kIsWide>(on_the_way, tiles.height, x.groups, w.has_offsets);
        store_dots(dots);
        if constexpr (kIsWide) {
          multiply_tiles<kSteps>(values + x.low_offset, x.stride);
          store_dots(dots + 2 * kDotTileInts);
        }
        const int64_t at = row * x.groups + group;
        on_the_way = {dots, scales + output, x.scales + at, x.sums + at,
                      scratch.sums + t * kAmxRows * kTileRows + output};
      }
    }
  }
  settle_tile_memory();
  add_dot_tiles<kIsWide>(on_the_way, tiles.height, x.groups, w.has_offsets);
}

void matmul_coded_amx(const PackedMatrix& w, int64_t tile, const QuantizedRows& x, int64_t first_row, int64_t rows,
                      float* y, int64_t y_stride, uint8_t* scratch_bytes, const uint8_t* next) {
  const bool is_wide = x.low_offset != 0;
  const int64_t fewest_rows = w.format == PackedFormat::kQ4 ? kAmxFewestRowsOfQ4 : kAmxFewestRows;
  if (rows < fewest_rows) return matmul_coded(w, tile, x, first_row, rows, y, y_stride, scratch_bytes, next);
  const AmxScratch scratch = amx_scratch(scratch_bytes);
  const uint8_t* const codes = w.tiles + tile * w.tile_bytes();
  const int64_t depth = w.group_columns == 128 ? 64 : w.group_columns;
  const auto pass = depth < w.group_columns ? (is_wide ? multiply_amx_pass<2, true> : multiply_amx_pass<2, false>)
                                            : (is_wide ? multiply_amx_pass<1, true> : multiply_amx_pass<1, false>);
  const RowTiles tiles = row_tiles(rows);
  const NextTile following = {next == nullptr ? codes : next, w.tile_bytes() / 4};
  configure_tiles(tiles.height, depth);
  for (int64_t first = 0; first < tiles.count; first += kAmxPassTiles) {
    const int64_t count = tiles.count - first < kAmxPassTiles ? tiles.count - first : kAmxPassTiles;
    pass(w, codes, x, first_row, tiles, first, count, following, scratch);
    for (int64_t t = 0; t < count; ++t) {
      const float* sums = scratch.sums + t * kAmxRows * kTileRows;
      float* to = y + tiles.first_row(first + t) * y_stride;
      for (int64_t r = 0; r < tiles.height; ++r, to += y_stride) {
        for (int64_t n = 0; n < kTileRows; n += kLanes) store(to + n, load(sums + r * kTileRows + n));
      }
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace ringside::cpu
