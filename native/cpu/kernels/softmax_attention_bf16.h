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

// Four independent folds of the columns, so that a row does not wait for one chain.
struct Folds {
  __m512 of[4];
};

RS_INLINE float total_of(const Folds& sums) {
  return _mm512_reduce_add_ps((sums.of[0] + sums.of[1]) + (sums.of[2] + sums.of[3]));
}
RS_INLINE float largest_of(const Folds& folds) {
  return _mm512_reduce_max_ps(maximum(maximum(folds.of[0], folds.of[1]), maximum(folds.of[2], folds.of[3])));
}

// Calls visit(first column, mask, fold) for the vectors of columns below `limit`: vector v goes to fold v % 4, whatever
// the limit is. Only the last may be a part of one.
template <class Visit>
RS_INLINE void visit_columns(int64_t limit, const Visit& visit) {
  int64_t j = 0;
  for (; j + 64 <= limit; j += 64) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) visit(j + v * 16, static_cast<__mmask16>(0xffff), v);
  }
  for (int v = 0; j < limit; j += 16, ++v) visit(j, mask_below(j, limit), v);
}

// Scores to bf16 probabilities relative to the row's maximum; zero for keys from `limit` to `columns`.
RS_INLINE RowSum soften_row_bf16(const float* scores, int64_t limit, int64_t columns, uint16_t* probabilities) {
  const __m512 lowest = broadcast(-__builtin_inff());
  Folds largest{{lowest, lowest, lowest, lowest}};
  visit_columns(limit, [&](int64_t j, __mmask16 seen, int v) {
    largest.of[v] = _mm512_mask_max_ps(largest.of[v], seen, load(scores + j), largest.of[v]);
  });
  const float top = largest_of(largest);
  const __m512 log2e = broadcast(1.44269504088896341f);
  const __m512 shift = broadcast(-top * 1.44269504088896341f);
  Folds sums{};
  visit_columns(limit, [&](int64_t j, __mmask16 seen, int v) {
    // A score that may not be seen may be anything, so its power is cut off, not multiplied away.
    const __m512 power = _mm512_maskz_mov_ps(seen, power_of_two(fma(load(scores + j), log2e, shift)));
    sums.of[v] = sums.of[v] + power;
    const __m256bh rounded = _mm512_cvtneps_pbh(power);
    __builtin_memcpy(probabilities + j, &rounded, sizeof rounded);
  });
  for (int64_t j = (limit + 15) / 16 * 16; j < columns; j += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j), _mm256_setzero_si256());
  }
  return {top, total_of(sums)};
}

// Machine::multiply(a, rows, grid, column tiles, depth tiles, c, after): c = a · b. `after` is what is read next,
// so that it can be called from memory in time; null where the page lies in a cache already.
template <class Machine>
RS_INLINE void key_block_in_bf16(const KeyBlock& block, bool streams) {
  const int64_t channels = block.layout.channels();
  const TileGrid keys = key_grid(block.layout, block.keys);
  const TileGrid values = value_grid(block.layout, block.values);
  const AfterGrid after_keys{values, channels / kKvTileColumns};
  // After the values of a head the page holds the keys of the next.
  const AfterGrid after_values{key_grid(block.layout, block.values + block.layout.part_bytes()),
                               RS_PAGE_TOKENS / kKvTileColumns};
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
                      channels / kTileDepth<RS_KV_BF16>, RowsOf<float>{scores, RS_PAGE_TOKENS},
                      streams ? &after_keys : nullptr);
    RowSum sums[kQueryGroupRows];
    for (int64_t r = 0; r < rows; ++r) {
      sums[r] = soften_row_bf16(scores + r * RS_PAGE_TOKENS, limits[r], depth_tiles * kTileDepth<RS_KV_BF16>,
                                probabilities + r * RS_PAGE_TOKENS);
    }
    Machine::multiply(RowsOf<const uint16_t>{probabilities, RS_PAGE_TOKENS}, rows, values, channels / kKvTileColumns,
                      depth_tiles, RowsOf<float>{mixed, channels}, streams ? &after_values : nullptr);
    for (int64_t r = 0; r < rows; ++r) {
      if (limits[r] == 0) continue;
      merge_key_block(block.maximum + row + r, block.sum + row + r, block.out + (row + r) * channels, sums[r].maximum,
                      sums[r].sum, mixed + r * channels, channels);
    }
  }
}

}  // namespace
}  // namespace ringside::cpu
