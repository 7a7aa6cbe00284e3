// Owns: the attention kernels compiled for AVX-512 with bf16 dot products (vdpbf16ps).
#include "cpu/kernels/attention_kernels.h"

#if defined(__AVX512BF16__)

#include "cpu/kernels/attention_table.h"
#include "cpu/kernels/softmax_attention_bf16.h"

namespace ringside::cpu {
namespace {

struct DotMachine {
  template <int kRows, int kTiles>
  RS_INLINE void multiply_tiles(const RowsOf<const uint16_t>& a, const TileGrid& b, int64_t tile, int64_t depth_tiles,
                                const RowsOf<float>& c) {
    __m512 sums[kRows][kTiles];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_setzero_ps();
    }
    const uint8_t* const columns = b.tiles + tile * b.column_bytes;
    for (int64_t depth = 0; depth < depth_tiles; ++depth) {
      const uint8_t* lines = columns + depth * b.tile_bytes;
      const uint16_t* x = a.rows + depth * kTileDepth<RS_KV_BF16>;
      for (int64_t i = 0; i < kTileDepth<RS_KV_BF16> / 2; ++i, lines += 64, x += 2) {
#pragma GCC unroll 4
        for (int t = 0; t < kTiles; ++t) {
          const uint8_t* at = lines + t * b.column_bytes;
          if constexpr (kRows <= 4) __builtin_prefetch(at + kLinePrefetchBytes);
          const __m512bh pairs = (__m512bh)_mm512_loadu_si512(at);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            int32_t pair;
            __builtin_memcpy(&pair, x + r * a.stride, sizeof pair);
            sums[r][t] = _mm512_dpbf16_ps(sums[r][t], (__m512bh)_mm512_set1_epi32(pair), pairs);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) store(c.rows + r * c.stride + (tile + t) * kKvTileColumns, sums[r][t]);
    }
  }

  template <int kRows>
  RS_INLINE void multiply_rows(const RowsOf<const uint16_t>& a, const TileGrid& b, int64_t column_tiles,
                               int64_t depth_tiles, const RowsOf<float>& c) {
    constexpr int kTiles = kRows <= 4 ? 4 : 2;
    for (int64_t tile = 0; tile < column_tiles; tile += kTiles) {
      multiply_tiles<kRows, kTiles>(a, b, tile, depth_tiles, c);
    }
  }

  RS_INLINE void multiply(const RowsOf<const uint16_t>& a, int64_t rows, const TileGrid& b, int64_t column_tiles,
                          int64_t depth_tiles, const RowsOf<float>& c, const AfterGrid*) {
    const auto from = [&](int64_t r) { return RowsOf<const uint16_t>{a.rows + r * a.stride, a.stride}; };
    const auto to = [&](int64_t r) { return RowsOf<float>{c.rows + r * c.stride, c.stride}; };
    int64_t row = 0;
    for (; row + 8 <= rows; row += 8) multiply_rows<8>(from(row), b, column_tiles, depth_tiles, to(row));
    for (; row + 4 <= rows; row += 4) multiply_rows<4>(from(row), b, column_tiles, depth_tiles, to(row));
    for (; row + 2 <= rows; row += 2) multiply_rows<2>(from(row), b, column_tiles, depth_tiles, to(row));
    if (row < rows) multiply_rows<1>(from(row), b, column_tiles, depth_tiles, to(row));
  }
};

void gather_queries_dot(const KvLayout& layout, const float* q, int64_t first_row, int64_t count, uint8_t* queries) {
  const auto gather = layout.format == RS_KV_BF16 ? gather_queries_bf16 : gather_queries_f32;
  gather(layout, q, first_row, count, queries);
}

void key_block_dot(const KeyBlock& block) {
  block.layout.format == RS_KV_BF16 ? key_block_in_bf16<DotMachine>(block, true) : key_block_widened(block);
}

}  // namespace

const AttentionKernels* avx512bf16_attention() {
  static constexpr AttentionKernels kKernels = [] {
    AttentionKernels table = attention_table("avx512bf16");
    table.gather_queries = gather_queries_dot;
    table.key_block = key_block_dot;
    return table;
  }();
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const AttentionKernels* avx512bf16_attention() { return nullptr; }

}  // namespace ringside::cpu

#endif
