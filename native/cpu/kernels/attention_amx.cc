// Owns: the attention kernels compiled for AMX with bf16 tiles. One row goes through the same instructions as many, and
// a tile instruction never mixes rows, so decode and prefill give the same bits.
// Must never: rely on the tile configuration that other code left, or leave one behind.
#include "cpu/kernels/attention_kernels.h"

#if defined(__AMX_BF16__)

#include "cpu/kernels/attention_table.h"
#include "cpu/kernels/softmax_attention_bf16.h"

namespace ringside::cpu {
namespace {

// The intrinsics do not tell the compiler which memory they read and write.
RS_INLINE void settle_memory() { asm volatile("" ::: "memory"); }

// All tiles: `rows` of 64 bytes for the operands that have a row for each query, 16 for keys and values.
RS_INLINE void configure_tiles(int64_t rows) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
  } configuration;
  for (int tile = 0; tile < 8; ++tile) configuration.rows[tile] = tile < 6 ? static_cast<uint8_t>(rows) : 16;
  settle_memory();
  _tile_loadconfig(&configuration);
}

// While few rows stream a page, this many bytes ahead are called from memory.
constexpr int64_t kTilePrefetchBytes = 16384;

template <bool kCoded>
RS_INLINE const uint8_t* tile_of(const uint8_t* tile, uint8_t* room) {
  if constexpr (kCoded) {
    widen_tiles(tile, 1, room);
    settle_memory();
    return room;
  } else {
    return tile;
  }
}

template <bool kCoded>
RS_INLINE void prefetch_tile(const uint8_t* tile) {
  constexpr int kLines = kCoded ? 8 : 16;
#pragma GCC unroll 16
  for (int line = 0; line < kLines; ++line) {
    __builtin_prefetch(tile + (kCoded ? kTilePrefetchBytes / 2 : kTilePrefetchBytes) + line * 64);
  }
}

struct TileMachine {
  // Up to 16 rows times kTiles columns of tiles: sums in tiles 0..3, rows in 4, the page's tiles in 6 and 7.
  template <bool kCoded, int kTiles>
  RS_INLINE void multiply_few(const RowsOf<const uint16_t>& a, const TileGrid& b, int64_t depth_tiles,
                              const RowsOf<float>& c, uint8_t* ring) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTiles == 4) {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int64_t tile = 0; tile < depth_tiles; ++tile) {
      const uint8_t* at = b.tiles + tile * b.depth_step;
      uint8_t* room = ring + tile % 2 * 4 * kBf16TileBytes;
      _tile_loadd(4, a.rows + tile * kKvTileDepth, a.stride * 2);
      prefetch_tile<kCoded>(at);
      _tile_loadd(6, tile_of<kCoded>(at, room), 64);
      _tile_dpbf16ps(0, 4, 6);
      prefetch_tile<kCoded>(at + b.column_step);
      _tile_loadd(7, tile_of<kCoded>(at + b.column_step, room + kBf16TileBytes), 64);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kTiles == 4) {
        prefetch_tile<kCoded>(at + 2 * b.column_step);
        _tile_loadd(6, tile_of<kCoded>(at + 2 * b.column_step, room + 2 * kBf16TileBytes), 64);
        _tile_dpbf16ps(2, 4, 6);
        prefetch_tile<kCoded>(at + 3 * b.column_step);
        _tile_loadd(7, tile_of<kCoded>(at + 3 * b.column_step, room + 3 * kBf16TileBytes), 64);
        _tile_dpbf16ps(3, 4, 7);
      }
    }
    _tile_stored(0, c.rows, c.stride * 4);
    _tile_stored(1, c.rows + kKvTileColumns, c.stride * 4);
    if constexpr (kTiles == 4) {
      _tile_stored(2, c.rows + 2 * kKvTileColumns, c.stride * 4);
      _tile_stored(3, c.rows + 3 * kKvTileColumns, c.stride * 4);
    }
  }

  // 32 rows times two columns of tiles: sums in tiles 0..3, rows in 4 and 5, the page's tiles in 6 and 7.
  RS_INLINE void multiply_many(const RowsOf<const uint16_t>& a, const TileGrid& b, int64_t depth_tiles,
                               const RowsOf<float>& c) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t tile = 0; tile < depth_tiles; ++tile) {
      const uint8_t* at = b.tiles + tile * b.depth_step;
      const uint16_t* rows = a.rows + tile * kKvTileDepth;
      _tile_loadd(4, rows, a.stride * 2);
      _tile_loadd(6, at, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, at + b.column_step, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, rows + 16 * a.stride, a.stride * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* const second = c.rows + 16 * c.stride;
    _tile_stored(0, c.rows, c.stride * 4);
    _tile_stored(1, c.rows + kKvTileColumns, c.stride * 4);
    _tile_stored(2, second, c.stride * 4);
    _tile_stored(3, second + kKvTileColumns, c.stride * 4);
  }

  template <bool kCoded>
  RS_INLINE void multiply(const RowsOf<const uint16_t>& a, int64_t rows, const TileGrid& b, int64_t column_tiles,
                          int64_t depth_tiles, const RowsOf<float>& c, uint8_t* ring) {
    const auto from = [&](int64_t tile) {
      return TileGrid{b.tiles + tile * b.column_step, b.column_step, b.depth_step};
    };
    const auto to = [&](int64_t tile) { return RowsOf<float>{c.rows + tile * kKvTileColumns, c.stride}; };
    settle_memory();
    int64_t tile = 0;
    if (rows > 16 && !kCoded) {
      for (; tile < column_tiles; tile += 2) multiply_many(a, from(tile), depth_tiles, to(tile));
    } else {
      for (int64_t row = 0; row < rows; row += 16) {
        const RowsOf<const uint16_t> a_rows = {a.rows + row * a.stride, a.stride};
        for (tile = 0; tile + 4 <= column_tiles; tile += 4) {
          multiply_few<kCoded, 4>(a_rows, from(tile), depth_tiles, {to(tile).rows + row * c.stride, c.stride}, ring);
        }
        for (; tile < column_tiles; tile += 2) {
          multiply_few<kCoded, 2>(a_rows, from(tile), depth_tiles, {to(tile).rows + row * c.stride, c.stride}, ring);
        }
      }
    }
    settle_memory();
  }
};

void key_block_tiles(const KeyBlock& block) {
  if (block.layout.format == RS_KV_F32) return key_block_in_f32<RS_KV_F32>(block);
  configure_tiles(block.rows < 16 ? block.rows : 16);
  key_block_in_bf16<TileMachine>(block);
  _tile_release();
}

}  // namespace

const AttentionKernels* amx_attention() {
  static constexpr AttentionKernels kKernels = [] {
    AttentionKernels table = attention_table("amx");
    table.gather_queries = gather_queries_bf16;
    table.key_block = key_block_tiles;
    return table;
  }();
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const AttentionKernels* amx_attention() { return nullptr; }

}  // namespace ringside::cpu

#endif
