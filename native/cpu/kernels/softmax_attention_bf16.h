// Owns: softmax attention to one absolute block of 256 keys whose products take bf16 pairs: queries, keys, values and
// probabilities are bf16, sums fp32. The including file says how a grid of tiles is multiplied.
//
// Codes of q8 are whole numbers that bf16 holds exactly; the scales of keys and values go onto the fp32 scores and
// probabilities of each key. The sum of a row is that of its probabilities before they are rounded.
#pragma once

#include "cpu/kernels/softmax_attention.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kBf16TileBytes = kKvTileColumns * kKvTileDepth * 2;

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

// 32 codes to bf16.
RS_INLINE __m512i widen_codes(const uint8_t* codes) {
  const __m512i words = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(words, 16), 16);
  const __m512i odd = _mm512_srai_epi32(words, 16);
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(even)), 16);
  // A whole number below 256 leaves the low half of its fp32 form empty.
  return _mm512_or_si512(low, _mm512_castps_si512(_mm512_cvtepi32_ps(odd)));
}

RS_INLINE void widen_tiles(const uint8_t* codes, int64_t tiles, uint8_t* to) {
  for (int64_t line = 0; line < tiles * kTileLines; ++line) {
    _mm512_storeu_si512(to + line * 64, widen_codes(codes + line * 32));
  }
}

void gather_queries_bf16(const KvLayout& layout, const float* q, int64_t count, uint8_t* out) {
  if (layout.format == RS_KV_F32) return gather_queries_f32(layout, q, count, out);
  const int64_t d = layout.head_dim;
  const int64_t channels = layout.channels();
  uint16_t* to = reinterpret_cast<uint16_t*>(out);
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

// Scores to bf16 probabilities relative to the row's maximum. Keys past `limit` get zero.
template <bool kScaled>
RS_INLINE RowSum soften_row_bf16(float* scores, int64_t limit, int64_t columns, const KeyScales& scales,
                                 uint16_t* probabilities) {
  const auto seen = [&](int64_t j) {
    const int64_t left = limit - j;
    return left >= 16  ? static_cast<__mmask16>(0xffff)
           : left <= 0 ? __mmask16{0}
                       : static_cast<__mmask16>((1U << left) - 1U);
  };
  const int64_t whole = (limit + 15) / 16 * 16;
  __m512 largest = broadcast(-__builtin_inff());
  for (int64_t j = 0; j < whole; j += 16) {
    __m512 score = load(scores + j);
    if constexpr (kScaled) {
      score = score * load(scales.keys + j);
      store(scores + j, score);
    }
    largest = _mm512_mask_max_ps(largest, seen(j), score, largest);
  }
  const float top = _mm512_reduce_max_ps(largest);
  const __m512 log2e = broadcast(1.44269504088896341f);
  const __m512 shift = broadcast(-top * 1.44269504088896341f);
  __m512 sum = _mm512_setzero_ps();
  const auto power = [&](int64_t j) {
    const __mmask16 mask = seen(j);
    // A masked score may be anything, so its power is cut off, not multiplied away.
    __m512 p = _mm512_maskz_mov_ps(mask, power_of_two(fma(load(scores + j), log2e, shift)));
    sum = sum + p;
    if constexpr (kScaled) p = _mm512_maskz_mul_ps(mask, p, load(scales.values + j));
    return p;
  };
  int64_t j = 0;
  for (; j < (limit + 31) / 32 * 32; j += 32) {
    const __m512 low = power(j);
    store_bf16(probabilities + j, low, power(j + 16));
  }
  for (; j < columns; j += 32) _mm512_storeu_si512(probabilities + j, _mm512_setzero_si512());
  return {top, _mm512_reduce_add_ps(sum)};
}

struct Bf16Scratch {
  float* scores;            // [32, 256]
  float* mixed;             // [32, channels]
  uint16_t* probabilities;  // [32, 256]
  uint8_t* ring;            // tiles on their way from codes to a product
  uint8_t* keys;            // [256, channels] bf16: codes widened once for many rows
  uint8_t* values;          // the same
};

RS_INLINE Bf16Scratch bf16_scratch(const KeyBlock& block) {
  const int64_t channels = block.layout.channels();
  Bf16Scratch scratch;
  scratch.scores = reinterpret_cast<float*>(block.scratch);
  scratch.mixed = scratch.scores + kQueryGroupRows * RS_PAGE_TOKENS;
  scratch.probabilities = reinterpret_cast<uint16_t*>(scratch.mixed + kQueryGroupRows * channels);
  scratch.ring = reinterpret_cast<uint8_t*>(scratch.probabilities + kQueryGroupRows * RS_PAGE_TOKENS);
  scratch.keys = scratch.ring + 8 * kBf16TileBytes;
  scratch.values = scratch.keys + RS_PAGE_TOKENS * channels * 2;
  return scratch;
}

// Machine::multiply<kCoded>(a, a_stride, rows, grid, column tiles, depth tiles, c, c_stride, ring): c = a · b, where
// kCoded says that the tiles are codes to be widened on the way.
template <class Machine, bool kScaled, bool kCoded>
RS_INLINE void key_block_groups(const KeyBlock& block, const TileGrid& keys, const TileGrid& values) {
  const int64_t channels = block.layout.channels();
  const KeyScales scales = scales_of(block);
  const Bf16Scratch scratch = bf16_scratch(block);
  for (int64_t row = 0; row < block.rows; row += kQueryGroupRows) {
    const int64_t rows = block.rows - row < kQueryGroupRows ? block.rows - row : kQueryGroupRows;
    const int32_t* limits = block.limits + row;
    const int64_t seen = largest_limit(limits, rows);
    if (seen == 0) continue;
    const int64_t depth_tiles = (seen + kKvTileDepth - 1) / kKvTileDepth;
    const uint16_t* queries = reinterpret_cast<const uint16_t*>(block.queries) + row * channels;
    Machine::template multiply<kCoded>({queries, channels}, rows, keys, 2 * depth_tiles, channels / kKvTileDepth,
                                       {scratch.scores, RS_PAGE_TOKENS}, scratch.ring);
    RowSum sums[kQueryGroupRows];
    for (int64_t r = 0; r < rows; ++r) {
      sums[r] = soften_row_bf16<kScaled>(scratch.scores + r * RS_PAGE_TOKENS, limits[r], depth_tiles * kKvTileDepth,
                                         scales, scratch.probabilities + r * RS_PAGE_TOKENS);
    }
    Machine::template multiply<kCoded>({scratch.probabilities, RS_PAGE_TOKENS}, rows, values, channels / kKvTileColumns,
                                       depth_tiles, {scratch.mixed, channels}, scratch.ring);
    for (int64_t r = 0; r < rows; ++r) {
      if (limits[r] == 0) continue;
      merge_key_block(block.maximum + row + r, block.sum + row + r, block.out + (row + r) * channels, sums[r].maximum,
                      sums[r].sum, scratch.mixed + r * channels, channels);
    }
  }
}

template <class Machine>
RS_INLINE void key_block_in_bf16(const KeyBlock& block) {
  if (block.layout.format == RS_KV_F32) return key_block_in_f32<RS_KV_F32>(block);
  const TileGrid keys = key_grid(block.layout, block.keys);
  const TileGrid values = value_grid(block.layout, block.values);
  if (block.layout.format == RS_KV_BF16) return key_block_groups<Machine, false, false>(block, keys, values);
  if (block.rows <= kQueryGroupRows) return key_block_groups<Machine, true, true>(block, keys, values);
  // Many rows: the codes that anyone sees are widened once. They are the first tiles of both parts.
  const Bf16Scratch scratch = bf16_scratch(block);
  const int64_t depth_tiles = (largest_limit(block.limits, block.rows) + kKvTileDepth - 1) / kKvTileDepth;
  const int64_t tiles = depth_tiles * (block.layout.channels() / kKvTileColumns);
  widen_tiles(block.keys, tiles, scratch.keys);
  widen_tiles(block.values, tiles, scratch.values);
  key_block_groups<Machine, true, false>(block, {scratch.keys, 2 * keys.column_step, 2 * keys.depth_step},
                                         {scratch.values, 2 * values.column_step, 2 * values.depth_step});
}

}  // namespace
}  // namespace ringside::cpu
