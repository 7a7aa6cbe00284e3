// Owns: softmax attention to one absolute block of 256 keys whose products take bf16 pairs: queries, keys, values and
// probabilities are bf16, sums fp32. The including file says how a grid of tiles is multiplied.
// The sum of a row is that of its probabilities before they are rounded.
#pragma once

#include "cpu/kernels/softmax_attention.h"

namespace ringside::cpu {
namespace {

// 2^x for x <= 0, to about 3e-7; NaN passes through.
RS_INLINE __m512 power_of_two(__m512 x) {
  x = _mm512_max_ps(broadcast(-126.0f), x);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = x - whole;
  __m512 p = broadcast(1.33335581464284e-3f);
  p = fma(p, r, broadcast(9.61812910762848e-3f));
  p = fma(p, r, broadcast(5.55041086648216e-2f));
  p = fma(p, r, broadcast(2.40226506959101e-1f));
  p = fma(p, r, broadcast(6.93147180559945e-1f));
  p = fma(p, r, broadcast(1.0f));
  return _mm512_scalef_ps(p, whole);
}

RS_INLINE void store_bf16(uint16_t* to, __m512 low, __m512 high) {
  const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
  __builtin_memcpy(to, &both, sizeof both);
}

void gather_queries_bf16(const KvLayout& layout, const float* q, int64_t first_row, int64_t count, uint8_t* queries) {
  const int64_t d = layout.head_dim;
  const int64_t channels = layout.channels();
  uint16_t* to = reinterpret_cast<uint16_t*>(queries) + first_row * channels;
  for (int64_t r = 0; r < count; ++r, q += d, to += channels) {
    for (int64_t a = 0; a < channels; a += 32) {
      const auto lanes = [&](int64_t from) {
        const int64_t left = d - from < 0 ? 0 : d - from > 16 ? 16 : d - from;
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << left) - 1U), q + from);
      };
      store_bf16(to + a, lanes(a), lanes(a + 16));
    }
  }
}

// The lanes of columns first .. first + 15 that are below `limit`.
RS_INLINE __mmask16 mask_below(int64_t first, int64_t limit) {
  const int64_t left = limit - first;
  return static_cast<__mmask16>(left >= 16 ? 0xffffU : left <= 0 ? 0U : (1U << left) - 1U);
}

// Scores to bf16 probabilities relative to the row's maximum; zero for keys from `limit` to `columns`.
RS_INLINE RowSum soften_row_bf16(const float* scores, int64_t limit, int64_t columns, uint16_t* probabilities) {
  __m512 largest = broadcast(-__builtin_inff());
  int64_t j = 0;
  for (; j + 16 <= limit; j += 16) largest = maximum(load(scores + j), largest);
  largest = _mm512_mask_max_ps(largest, mask_below(j, limit), load(scores + j), largest);
  const float top = _mm512_reduce_max_ps(largest);
  const __m512 log2e = broadcast(1.44269504088896341f);
  const __m512 shift = broadcast(-top * 1.44269504088896341f);
  const auto power = [&](int64_t at) { return power_of_two(fma(load(scores + at), log2e, shift)); };
  __m512 sum = _mm512_setzero_ps();
  for (j = 0; j + 32 <= limit; j += 32) {
    const __m512 low = power(j);
    const __m512 high = power(j + 16);
    sum = sum + low + high;
    store_bf16(probabilities + j, low, high);
  }
  if (j < limit) {
    // A score that may not be seen may be anything, so its power is cut off, not multiplied away.
    const __m512 low = _mm512_maskz_mov_ps(mask_below(j, limit), power(j));
    const __m512 high = _mm512_maskz_mov_ps(mask_below(j + 16, limit), power(j + 16));
    sum = sum + low + high;
    store_bf16(probabilities + j, low, high);
    j += 32;
  }
  for (; j < columns; j += 32) _mm512_storeu_si512(probabilities + j, _mm512_setzero_si512());
  return {top, _mm512_reduce_add_ps(sum)};
}

// Machine::multiply(a, rows, grid, column tiles, depth tiles, c, streams): c = a · b; `streams`: from memory, not
// from a cache.
template <class Machine>
RS_INLINE void key_block_in_bf16(const KeyBlock& block, bool streams) {
  const int64_t channels = block.layout.channels();
  const TileGrid keys = key_grid(block.layout, block.keys);
  const TileGrid values = value_grid(block.layout, block.values);
  float* const scores = reinterpret_cast<float*>(block.scratch);                                    // [32, 256]
  float* const mixed = scores + kQueryGroupRows * RS_PAGE_TOKENS;                                   // [32, channels]
  uint16_t* const probabilities = reinterpret_cast<uint16_t*>(mixed + kQueryGroupRows * channels);  // [32, 256]
  for (int64_t row = 0; row < block.rows; row += kQueryGroupRows) {
    const int64_t rows = block.rows - row < kQueryGroupRows ? block.rows - row : kQueryGroupRows;
    const int32_t* limits = block.limits + row;
    const int64_t seen = largest_limit(limits, rows);
    if (seen == 0) continue;
    const int64_t depth_tiles = value_tiles(block.layout, seen);
    const uint16_t* queries = reinterpret_cast<const uint16_t*>(block.queries) + row * channels;
    Machine::multiply(RowsOf<const uint16_t>{queries, channels}, rows, keys, score_tiles(seen),
                      channels / kTileDepth<RS_KV_BF16>, RowsOf<float>{scores, RS_PAGE_TOKENS}, streams);
    RowSum sums[kQueryGroupRows];
    for (int64_t r = 0; r < rows; ++r) {
      sums[r] = soften_row_bf16(scores + r * RS_PAGE_TOKENS, limits[r], depth_tiles * kTileDepth<RS_KV_BF16>,
                                probabilities + r * RS_PAGE_TOKENS);
    }
    Machine::multiply(RowsOf<const uint16_t>{probabilities, RS_PAGE_TOKENS}, rows, values, channels / kKvTileColumns,
                      depth_tiles, RowsOf<float>{mixed, channels}, streams);
    for (int64_t r = 0; r < rows; ++r) {
      if (limits[r] == 0) continue;
      merge_key_block(block.maximum + row + r, block.sum + row + r, block.out + (row + r) * channels, sums[r].maximum,
                      sums[r].sum, mixed + r * channels, channels);
    }
  }
}

}  // namespace
}  // namespace ringside::cpu
