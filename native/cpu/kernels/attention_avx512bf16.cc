// Owns: the attention kernels compiled for AVX-512 with bf16 dot products (vdpbf16ps).
#include "cpu/kernels/attention_kernels.h"

#if defined(__AVX512BF16__)

#include "cpu/kernels/attention_table.h"
#include "cpu/kernels/softmax_attention_bf16.h"

namespace ringside::cpu {
namespace {

struct DotMachine {
  template <bool kCoded>
  RS_INLINE __m512bh load_pairs(const uint8_t* line) {
    const __m512i pairs = kCoded ? widen_codes(line) : _mm512_loadu_si512(line);
    return (__m512bh)pairs;
  }

  template <bool kCoded, int kRows, int kTiles>
  RS_INLINE void multiply_tiles(const RowsOf<const uint16_t>& a, const TileGrid& b, int64_t depth_tiles,
                                const RowsOf<float>& c) {
    constexpr int64_t kBytes = kCoded ? 32 : 64;
    __m512 sums[kRows][kTiles];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) sums[r][t] = _mm512_setzero_ps();
    }
    for (int64_t tile = 0; tile < depth_tiles; ++tile) {
      const uint8_t* lines = b.tiles + tile * b.depth_step;
      const uint16_t* x = a.rows + tile * kKvTileDepth;
      for (int64_t i = 0; i < kTileLines; ++i, lines += kBytes, x += 2) {
#pragma GCC unroll 4
        for (int t = 0; t < kTiles; ++t) {
          const uint8_t* at = lines + t * b.column_step;
          if constexpr (kRows <= 4) __builtin_prefetch(at + kLinePrefetchBytes);
          const __m512bh pairs = load_pairs<kCoded>(at);
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
      for (int t = 0; t < kTiles; ++t) store(c.rows + r * c.stride + t * kKvTileColumns, sums[r][t]);
    }
  }

  template <bool kCoded, int kRows>
  RS_INLINE void multiply_rows(const RowsOf<const uint16_t>& a, const TileGrid& b, int64_t column_tiles,
                               int64_t depth_tiles, const RowsOf<float>& c) {
    for (int64_t tile = 0; tile < column_tiles; tile += 2) {  // their number is even
      multiply_tiles<kCoded, kRows, 2>(a, {b.tiles + tile * b.column_step, b.column_step, b.depth_step}, depth_tiles,
                                       {c.rows + tile * kKvTileColumns, c.stride});
    }
  }

  template <bool kCoded>
  RS_INLINE void multiply(const RowsOf<const uint16_t>& a, int64_t rows, const TileGrid& b, int64_t column_tiles,
                          int64_t depth_tiles, const RowsOf<float>& c, uint8_t*) {
    const auto from = [&](int64_t r) { return RowsOf<const uint16_t>{a.rows + r * a.stride, a.stride}; };
    const auto to = [&](int64_t r) { return RowsOf<float>{c.rows + r * c.stride, c.stride}; };
    int64_t row = 0;
    for (; row + 8 <= rows; row += 8) multiply_rows<kCoded, 8>(from(row), b, column_tiles, depth_tiles, to(row));
    for (; row + 4 <= rows; row += 4) multiply_rows<kCoded, 4>(from(row), b, column_tiles, depth_tiles, to(row));
    for (; row + 2 <= rows; row += 2) multiply_rows<kCoded, 2>(from(row), b, column_tiles, depth_tiles, to(row));
    if (row < rows) multiply_rows<kCoded, 1>(from(row), b, column_tiles, depth_tiles, to(row));
  }
};

void key_block_dot(const KeyBlock& block) { key_block_in_bf16<DotMachine>(block); }

}  // namespace

const AttentionKernels* avx512bf16_attention() {
  static constexpr AttentionKernels kKernels = [] {
    AttentionKernels table = attention_table("avx512bf16");
    table.gather_queries = gather_queries_bf16;
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
