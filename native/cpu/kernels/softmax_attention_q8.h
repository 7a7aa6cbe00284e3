// Owns: softmax attention to one absolute block of 256 keys of 8-bit codes, in whole numbers: queries and probabilities
// become 16 bits for each row, as a high and a low byte that are multiplied apart. Their sums are exact, so no order of
// additions matters; the scales of row and key are applied to the finished sums and before the split.
// The including file says how a grid of tiles is multiplied. It sees eight rows as sixteen: eight of high bytes, then
// eight of low bytes.
#pragma once

#include "cpu/kernels/softmax_attention_bf16.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kSplitGroup = 8;  // rows whose high and low bytes make sixteen

// The largest magnitude of the 16-bit numbers: 127 * 256 and a low byte that may round down.
constexpr float kSplitLimit = 32512.0f;

// x = 256 high + low with both signed; 16 numbers.
RS_INLINE void store_split(__m512i x, int8_t* high, int8_t* low) {
  const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(128)), 8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(upper));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(x));  // the low byte, taken as signed
}

// Query r lies in group r / 8: [8 rows of high bytes][8 rows of low bytes][8 scales, 4 bytes each, and room up to the
// 32 * channels bytes that eight queries have].
RS_INLINE const float* query_scales(const uint8_t* group, int64_t channels) {
  return reinterpret_cast<const float*>(group + 2 * kSplitGroup * channels);
}

void gather_queries_q8(const KvLayout& layout, const float* q, int64_t first_row, int64_t count, uint8_t* queries) {
  const int64_t d = layout.head_dim;
  const int64_t channels = layout.channels();
  for (int64_t r = first_row; r < first_row + count; ++r, q += d) {
    uint8_t* const group = queries + r / kSplitGroup * kSplitGroup * layout.query_bytes();
    int8_t* const high = reinterpret_cast<int8_t*>(group) + r % kSplitGroup * channels;
    int8_t* const low = high + kSplitGroup * channels;
    const auto lanes = [&](int64_t a) {
      const int64_t left = d - a;
      const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffU : left <= 0 ? 0U : (1U << left) - 1U);
      return _mm512_maskz_loadu_ps(mask, q + a);
    };
    __m512 largest = _mm512_setzero_ps();
    bool finite = true;
    for (int64_t a = 0; a < d; a += 16) {
      const __m512 magnitude = _mm512_abs_ps(lanes(a));
      finite = finite && _mm512_cmp_ps_mask(magnitude, broadcast(__builtin_inff()), _CMP_NLT_UQ) == 0;
      largest = _mm512_max_ps(largest, magnitude);
    }
    const float top = _mm512_reduce_max_ps(largest);
    // A query that is no number must give nothing but NaN.
    const float scale = !finite ? __builtin_nanf("") : top > 1e-30f ? top / kSplitLimit : 0.0f;
    const __m512 inverse = broadcast(finite && top > 1e-30f ? kSplitLimit / top : 0.0f);
    for (int64_t a = 0; a < channels; a += 16) {
      const __m512i x = finite ? _mm512_cvtps_epi32(lanes(a) * inverse) : _mm512_setzero_si512();
      store_split(x, high + a, low + a);
    }
    reinterpret_cast<float*>(group + 2 * kSplitGroup * channels)[r % kSplitGroup] = scale;
  }
}

// The number of two sums of sixteen columns, high and low.
RS_INLINE __m512 joined(const int32_t* high, const int32_t* low) {
  return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_loadu_si512(high), 8), _mm512_loadu_si512(low)));
}

struct SplitRow {
  RowSum sum;
  float scale;  // of the split probabilities
};

// Sums to probabilities relative to the row's maximum, times the scale of each key's values, in 16 bits of which the
// largest such scale fills the whole; zero for keys from `limit` to `columns`. `scores`: scratch [256].
RS_INLINE SplitRow soften_row_q8(const int32_t* high, const int32_t* low, float query_scale, const KeyScales& scales,
                                 int64_t limit, int64_t columns, float* scores, int8_t* to_high, int8_t* to_low) {
  const __m512 lowest = broadcast(-__builtin_inff());
  Folds largest{{lowest, lowest, lowest, lowest}};
  Folds largest_scale{};
  visit_columns(limit, [&](int64_t j, __mmask16 seen, int v) {
    const __m512 score = joined(high + j, low + j) * (load(scales.keys + j) * broadcast(query_scale));
    store(scores + j, score);
    largest.of[v] = _mm512_mask_max_ps(largest.of[v], seen, score, largest.of[v]);
    largest_scale.of[v] = _mm512_mask_max_ps(largest_scale.of[v], seen, load(scales.values + j), largest_scale.of[v]);
  });
  const float top = largest_of(largest);
  const float scale = largest_of(largest_scale) / kSplitLimit;
  const __m512 log2e = broadcast(1.44269504088896341f);
  const __m512 shift = broadcast(-top * 1.44269504088896341f);
  const __m512 inverse = broadcast(scale > 1e-33f ? 1.0f / scale : 0.0f);
  Folds sums{};
  visit_columns(limit, [&](int64_t j, __mmask16 seen, int v) {
    // What may not be seen may be anything, so it is cut off, not multiplied away.
    const __m512 power = _mm512_maskz_mov_ps(seen, power_of_two(fma(load(scores + j), log2e, shift)));
    sums.of[v] = sums.of[v] + power;
    const __m512 weighted = _mm512_maskz_mul_ps(seen, power, load(scales.values + j) * inverse);
    store_split(_mm512_cvtps_epi32(weighted), to_high + j, to_low + j);
  });
  for (int64_t j = (limit + 15) / 16 * 16; j < columns; j += 16) {
    store_split(_mm512_setzero_si512(), to_high + j, to_low + j);
  }
  // A NaN among the scores is no whole number; it comes out through the sum.
  return {{top, total_of(sums)}, scale};
}

// Machine::multiply(a, rows, grid, column tiles, depth tiles, c, after): c = a · b in whole numbers. `after` is what is
// read next, so that it can be called from memory in time; null where the page lies in a cache already.
template <class Machine>
RS_INLINE void key_block_in_q8(const KeyBlock& block, bool streams) {
  const int64_t channels = block.layout.channels();
  const KeyScales scales = scales_of(block);
  const TileGrid keys = key_grid(block.layout, block.keys);
  const TileGrid values = value_grid(block.layout, block.values);
  const AfterGrid after_keys{values, channels / kKvTileColumns};
  // After the values of a head the page holds the keys of the next.
  const AfterGrid after_values{key_grid(block.layout, block.values + block.layout.part_bytes()),
                               RS_PAGE_TOKENS / kKvTileColumns};
  constexpr int64_t kRows = 2 * kSplitGroup;
  int32_t* const sums = reinterpret_cast<int32_t*>(block.scratch);           // [16, 256]
  int32_t* const mixed = sums + kRows * RS_PAGE_TOKENS;                      // [16, channels]
  float* const scores = reinterpret_cast<float*>(mixed + kRows * channels);  // [256]
  float* const block_out = scores + RS_PAGE_TOKENS;                          // [channels]
  int8_t* const split = reinterpret_cast<int8_t*>(block_out + channels);     // [16, 256]
  for (int64_t row = 0; row < block.rows; row += kSplitGroup) {
    const int64_t rows = block.rows - row < kSplitGroup ? block.rows - row : kSplitGroup;
    const int32_t* limits = block.limits + row;
    const int64_t seen = largest_limit(limits, rows);
    if (seen == 0) continue;
    const int64_t depth_tiles = value_tiles(block.layout, seen);
    const uint8_t* const group = block.queries + row * block.layout.query_bytes();
    Machine::multiply(RowsOf<const int8_t>{reinterpret_cast<const int8_t*>(group), channels}, kRows, keys,
                      score_tiles(seen), channels / kTileDepth<RS_KV_Q8>, RowsOf<int32_t>{sums, RS_PAGE_TOKENS},
                      streams ? &after_keys : nullptr);
    SplitRow softened[kSplitGroup];
    for (int64_t r = 0; r < rows; ++r) {
      softened[r] =
          soften_row_q8(sums + r * RS_PAGE_TOKENS, sums + (r + kSplitGroup) * RS_PAGE_TOKENS,
                        query_scales(group, channels)[r], scales, limits[r], depth_tiles * kTileDepth<RS_KV_Q8>, scores,
                        split + r * RS_PAGE_TOKENS, split + (r + kSplitGroup) * RS_PAGE_TOKENS);
    }
    Machine::multiply(RowsOf<const int8_t>{split, RS_PAGE_TOKENS}, kRows, values, channels / kKvTileColumns,
                      depth_tiles, RowsOf<int32_t>{mixed, channels}, streams ? &after_values : nullptr);
    for (int64_t r = 0; r < rows; ++r) {
      if (limits[r] == 0) continue;
      for (int64_t a = 0; a < channels; a += 16) {
        const int64_t at = r * channels + a;
        store(block_out + a, joined(mixed + at, mixed + at + kSplitGroup * channels) * broadcast(softened[r].scale));
      }
      merge_key_block(block.maximum + row + r, block.sum + row + r, block.out + (row + r) * channels,
                      softened[r].sum.maximum, softened[r].sum.sum, block_out, channels);
    }
  }
}

}  // namespace
}  // namespace ringside::cpu
