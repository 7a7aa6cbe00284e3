// Owns: products of fp32 rows with the tiles of a page (attention_kernels.h), widened to fp32 on the way.
// One ascending chain of multiply-adds per element; the number of rows and tiles taken together never changes it.
#pragma once

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

constexpr int kLineVecs = kKvTileColumns / kLanes;

// Sixteen columns at two depths.
struct Line {
  Vec even[kLineVecs];
  Vec odd[kLineVecs];
};

template <rs_kv_format kFormat>
constexpr int64_t kTileDepth = kFormat == RS_KV_Q8 ? 64 : 32;

// Depths 2 * pair and 2 * pair + 1 of a tile.
template <rs_kv_format kFormat>
RS_INLINE Line load_line(const uint8_t* tile, int64_t pair) {
  Line line;
#pragma GCC unroll 4
  for (int v = 0; v < kLineVecs; ++v) {
    if constexpr (kFormat == RS_KV_F32) {
      const float* values = reinterpret_cast<const float*>(tile) + pair * 2 * kKvTileColumns + v * kLanes;
      line.even[v] = load(values);
      line.odd[v] = load(values + kKvTileColumns);
    } else if constexpr (kFormat == RS_KV_BF16) {
      Lanes pairs;
      __builtin_memcpy(&pairs, tile + pair * 64 + v * sizeof pairs, sizeof pairs);
      line.even[v] = (Vec)(pairs << 16);
      line.odd[v] = (Vec)(pairs & static_cast<int32_t>(0xffff0000));
    } else {
      Lanes quads;
      __builtin_memcpy(&quads, tile + pair / 2 * 64 + v * sizeof quads, sizeof quads);
      quads = pair % 2 == 0 ? quads << 16 : quads;
      line.even[v] = (Vec) __builtin_convertvector((quads << 8) >> 24, Vec);
      line.odd[v] = (Vec) __builtin_convertvector(quads >> 24, Vec);
    }
  }
  return line;
}

// The tiles of one operand: tile (column, depth) lies at column * column_bytes + depth * tile_bytes.
struct TileGrid {
  const uint8_t* tiles;
  int64_t column_bytes;
  int64_t tile_bytes;
};

// What is read after a product, so that it can be called from memory in time.
struct AfterGrid {
  TileGrid grid;
  int64_t column_tiles;
};

RS_INLINE TileGrid key_grid(const KvLayout& layout, const uint8_t* keys) {
  return {keys, layout.channels() / layout.tile_depth() * layout.tile_bytes(), layout.tile_bytes()};
}
RS_INLINE TileGrid value_grid(const KvLayout& layout, const uint8_t* values) {
  return {values, RS_PAGE_TOKENS / layout.tile_depth() * layout.tile_bytes(), layout.tile_bytes()};
}

template <class T>
struct RowsOf {
  T* rows;
  int64_t stride;
};

// Enough lines ahead to cover the way to memory while one row of a decode step streams.
constexpr int64_t kLinePrefetchBytes = 1024;

template <rs_kv_format kFormat>
constexpr int64_t kPairBytes = kKvTileColumns * 2 *
                               (kFormat == RS_KV_F32    ? 4
                                : kFormat == RS_KV_BF16 ? 2
                                                        : 1);

template <rs_kv_format kFormat, int kRows, int kTiles>
RS_INLINE void multiply_tiles(const RowsOf<const float>& a, const TileGrid& b, int64_t tile, int64_t depth_tiles,
                              const RowsOf<float>& c) {
  Vec sums[kRows][kTiles][kLineVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < kLineVecs; ++v) sums[r][t][v] = Vec{};
    }
  }
  const uint8_t* const columns = b.tiles + tile * b.column_bytes;
  for (int64_t depth = 0; depth < depth_tiles; ++depth) {
    const uint8_t* at = columns + depth * b.tile_bytes;
    const float* x = a.rows + depth * kTileDepth<kFormat>;
#pragma GCC unroll 2
    for (int64_t pair = 0; pair < kTileDepth<kFormat> / 2; ++pair, x += 2) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) {
        const uint8_t* from = at + t * b.column_bytes;
        if constexpr (kRows <= 4) __builtin_prefetch(from + pair * kPairBytes<kFormat> + kLinePrefetchBytes);
        const Line line = load_line<kFormat>(from, pair);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Vec even = broadcast(x[r * a.stride]);
          const Vec odd = broadcast(x[r * a.stride + 1]);
#pragma GCC unroll 4
          for (int v = 0; v < kLineVecs; ++v) {
            sums[r][t][v] = fma(odd, line.odd[v], fma(even, line.even[v], sums[r][t][v]));
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < kLineVecs; ++v) {
        store(c.rows + r * c.stride + (tile + t) * kKvTileColumns + v * kLanes, sums[r][t][v]);
      }
    }
  }
}

template <rs_kv_format kFormat, int kRows>
RS_INLINE void multiply_rows(const RowsOf<const float>& a, const TileGrid& b, int64_t column_tiles, int64_t depth_tiles,
                             const RowsOf<float>& c) {
  constexpr int kTiles = kLanes == 16 ? (kRows <= 4 ? 4 : 2) : 1;
  for (int64_t tile = 0; tile < column_tiles; tile += kTiles) {
    multiply_tiles<kFormat, kRows, kTiles>(a, b, tile, depth_tiles, c);
  }
}

// c[r] = a[r] · b for whole groups of column tiles.
template <rs_kv_format kFormat>
RS_INLINE void multiply_grid(const RowsOf<const float>& a, int64_t rows, const TileGrid& b, int64_t column_tiles,
                             int64_t depth_tiles, const RowsOf<float>& c) {
  constexpr int kMany = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 2;
  int64_t row = 0;
  const auto from = [&](int64_t r) { return RowsOf<const float>{a.rows + r * a.stride, a.stride}; };
  const auto to = [&](int64_t r) { return RowsOf<float>{c.rows + r * c.stride, c.stride}; };
  for (; row + kMany <= rows; row += kMany) {
    multiply_rows<kFormat, kMany>(from(row), b, column_tiles, depth_tiles, to(row));
  }
  if constexpr (kMany > 4) {
    for (; row + 4 <= rows; row += 4) multiply_rows<kFormat, 4>(from(row), b, column_tiles, depth_tiles, to(row));
  }
  for (; row + 2 <= rows; row += 2) multiply_rows<kFormat, 2>(from(row), b, column_tiles, depth_tiles, to(row));
  if (row < rows) multiply_rows<kFormat, 1>(from(row), b, column_tiles, depth_tiles, to(row));
}

}  // namespace
}  // namespace ringside::cpu
