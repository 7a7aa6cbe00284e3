// Owns: the attention kernels compiled for AMX, with tiles of bf16 pairs and of bytes. One row goes through the same
// instructions as many, and a tile instruction never mixes rows, so decode and prefill give the same bits. Must never:
// rely on the tile configuration that other code left, or leave one behind.
#include "cpu/kernels/attention_kernels.h"

#if defined(__AMX_BF16__)

#include "cpu/kernels/amx_tiles.h"
#include "cpu/kernels/attention_table.h"
#include "cpu/kernels/chunk_attention_tiles.h"
#include "cpu/kernels/softmax_attention_bf16.h"
#include "cpu/kernels/softmax_attention_q8.h"

namespace ringside::cpu {
namespace {

// A tile of keys or values.
constexpr int64_t kTileBytes = 1024;

RS_INLINE void prefetch_tile(const uint8_t* tile) {
#pragma GCC unroll 16
  for (int line = 0; line < 16; ++line) __builtin_prefetch(tile + line * 64);
}

// Four columns of tiles, so many bytes apart, that are read side by side.
struct Streams {
  const uint8_t* tiles;
  int64_t apart_bytes;
};

// Of `column_tiles` columns the first four that are read together: a quarter of them apart, so that each of the four
// streams goes on where it ended when the next columns follow.
RS_INLINE Streams first_streams(const TileGrid& grid, int64_t column_tiles) {
  return {grid.tiles, column_tiles / kKvGroupTiles * grid.column_bytes};
}

// a · b of tile registers added to another, by the type of a's elements.
#define RS_MULTIPLY_TILES(sums, a, b) \
  if constexpr (sizeof(A) == 2) {     \
    _tile_dpbf16ps(sums, a, b);       \
  } else {                            \
    _tile_dpbssd(sums, a, b);         \
  }

struct TileMachine {
  // Up to 16 rows times four columns of tiles: sums in tiles 0..3, rows in 4, the page's tiles in 6 and 7. Column i of
  // the four goes to c + i * c_apart. `next`: what is read after these, where the page comes from memory; else null.
  template <class A, class C>
  RS_INLINE void multiply_few(const RowsOf<const A>& a, const Streams& b, int64_t depth_tiles, const RowsOf<C>& c,
                              int64_t c_apart, const Streams* next) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const uint8_t* at = b.tiles;
    const uint8_t* rows = reinterpret_cast<const uint8_t*>(a.rows);
    for (int64_t depth = 0; depth < depth_tiles; ++depth, at += kTileBytes, rows += 64) {
      const Streams ahead =
          next != nullptr && depth + 1 == depth_tiles ? *next : Streams{at + kTileBytes, b.apart_bytes};
      _tile_loadd(4, rows, a.stride * static_cast<int64_t>(sizeof(A)));
      if (next != nullptr) prefetch_tile(ahead.tiles);
      _tile_loadd(6, at, 64);
      RS_MULTIPLY_TILES(0, 4, 6);
      if (next != nullptr) prefetch_tile(ahead.tiles + ahead.apart_bytes);
      _tile_loadd(7, at + b.apart_bytes, 64);
      RS_MULTIPLY_TILES(1, 4, 7);
      if (next != nullptr) prefetch_tile(ahead.tiles + 2 * ahead.apart_bytes);
      _tile_loadd(6, at + 2 * b.apart_bytes, 64);
      RS_MULTIPLY_TILES(2, 4, 6);
      if (next != nullptr) prefetch_tile(ahead.tiles + 3 * ahead.apart_bytes);
      _tile_loadd(7, at + 3 * b.apart_bytes, 64);
      RS_MULTIPLY_TILES(3, 4, 7);
    }
    _tile_stored(0, c.rows, c.stride * 4);
    _tile_stored(1, c.rows + c_apart, c.stride * 4);
    _tile_stored(2, c.rows + 2 * c_apart, c.stride * 4);
    _tile_stored(3, c.rows + 3 * c_apart, c.stride * 4);
  }

  // 32 rows times two columns of tiles: sums in tiles 0..3, rows in 4 and 5, the page's tiles in 6 and 7.
  template <class A, class C>
  RS_INLINE void multiply_many(const RowsOf<const A>& a, const TileGrid& b, int64_t tile, int64_t depth_tiles,
                               const RowsOf<C>& c) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int64_t row_bytes = a.stride * static_cast<int64_t>(sizeof(A));
    const uint8_t* at = b.tiles + tile * b.column_bytes;
    const uint8_t* rows = reinterpret_cast<const uint8_t*>(a.rows);
    for (int64_t depth = 0; depth < depth_tiles; ++depth, at += kTileBytes, rows += 64) {
      _tile_loadd(4, rows, row_bytes);
      _tile_loadd(6, at, 64);
      RS_MULTIPLY_TILES(0, 4, 6);
      _tile_loadd(7, at + b.column_bytes, 64);
      RS_MULTIPLY_TILES(1, 4, 7);
      _tile_loadd(5, rows + 16 * row_bytes, row_bytes);
      RS_MULTIPLY_TILES(2, 5, 6);
      RS_MULTIPLY_TILES(3, 5, 7);
    }
    C* const first = c.rows + tile * kKvTileColumns;
    C* const second = first + 16 * c.stride;
    _tile_stored(0, first, c.stride * 4);
    _tile_stored(1, first + kKvTileColumns, c.stride * 4);
    _tile_stored(2, second, c.stride * 4);
    _tile_stored(3, second + kKvTileColumns, c.stride * 4);
  }

  template <class A, class C>
  RS_INLINE void multiply(const RowsOf<const A>& a, int64_t rows, const TileGrid& b, int64_t column_tiles,
                          int64_t depth_tiles, const RowsOf<C>& c, const AfterGrid* after) {
    settle_memory();
    if (rows > 16) {
      for (int64_t tile = 0; tile < column_tiles; tile += 2) multiply_many(a, b, tile, depth_tiles, c);
    } else {
      const int64_t turns = column_tiles / kKvGroupTiles;
      Streams streams = first_streams(b, column_tiles);
      for (int64_t turn = 0; turn < turns; ++turn) {
        Streams next{streams.tiles + b.column_bytes, streams.apart_bytes};
        if (turn + 1 == turns && after != nullptr) next = first_streams(after->grid, after->column_tiles);
        multiply_few(a, streams, depth_tiles, RowsOf<C>{c.rows + turn * kKvTileColumns, c.stride},
                     turns * kKvTileColumns, after == nullptr ? nullptr : &next);
        streams = next;
      }
    }
    settle_memory();
  }
};

#undef RS_MULTIPLY_TILES

// Few enough rows that the way from memory takes longer than the products.
constexpr int64_t kStreamingRows = 16;

void gather_queries_tiles(const KvLayout& layout, const float* q, int64_t first_row, int64_t count, uint8_t* queries) {
  const auto gather = layout.format == RS_KV_BF16 ? gather_queries_bf16
                      : layout.format == RS_KV_Q8 ? gather_queries_q8
                                                  : gather_queries_f32;
  gather(layout, q, first_row, count, queries);
}

void key_block_tiles(const KeyBlock& block) {
  if (block.layout.format == RS_KV_F32) return key_block_in_f32<RS_KV_F32>(block);
  if (block.layout.format == RS_KV_Q8) {
    configure_tiles(kSplitGroup + (block.rows < kSplitGroup ? block.rows : kSplitGroup));
    key_block_in_q8<TileMachine>(block, block.rows <= kStreamingRows);
  } else {
    configure_tiles(block.rows < 16 ? block.rows : 16);
    key_block_in_bf16<TileMachine>(block, block.rows <= kStreamingRows);
  }
  _tile_release();
}

}  // namespace

const AttentionKernels* amx_attention() {
  static constexpr AttentionKernels kKernels = [] {
    AttentionKernels table = attention_table("amx");
    table.gather_queries = gather_queries_tiles;
    table.key_block = key_block_tiles;
    table.chunk_read = chunk_read_tiles;
    table.chunk_commit = chunk_commit_tiles;
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
