// Owns: softmax attention to one absolute block of 256 keys in fp32, and the merge of blocks in ascending order.
// Must never: let a position that a row may not see reach that row, not even as zero times infinity: append_keys keeps
// every stored value finite (kv_append.h).
//
// The sum of a row is the fp32 sum of its exact probabilities, in sixteen strided sums that are then added in pairs.
#pragma once

#include "cpu/kernels/kv_lines.h"

namespace ringside::cpu {
namespace {

constexpr int kSumVecs = 16 / kLanes;

// Of sixteen lanes in kSumVecs vectors: halves are folded onto each other, the same on every width.
template <class Fold>
RS_INLINE float fold_lanes(const Vec* vectors, const Fold& fold) {
  float lanes[16];
  for (int v = 0; v < kSumVecs; ++v) store(lanes + v * kLanes, vectors[v]);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = fold(lanes[i], lanes[i + half]);
  }
  return lanes[0];
}

// All ones in the lanes of columns first, first + 1, … that are below `limit`.
RS_INLINE Lanes lanes_below(int64_t first, int64_t limit) {
  Lanes columns;
  for (int i = 0; i < kLanes; ++i) columns[i] = i;
  const int32_t seen = static_cast<int32_t>(limit - first);
  return columns < (Lanes{} + seen);
}

// What q8 multiplies the scores and the probabilities of each key by.
struct KeyScales {
  const float* keys = nullptr;
  const float* values = nullptr;
};

struct RowSum {
  float maximum;
  float sum;
};

// Scores to maximum; `columns` is a multiple of 32 and at least `limit`. Columns that may not be seen become -infinity.
template <bool kScaled>
RS_INLINE float mask_scores(float* scores, int64_t limit, int64_t columns, const KeyScales& scales) {
  Vec largest[kSumVecs];
  for (int v = 0; v < kSumVecs; ++v) largest[v] = broadcast(-__builtin_inff());
  for (int64_t j = 0; j < columns; j += 16) {
    for (int v = 0; v < kSumVecs; ++v) {
      float* const at = scores + j + v * kLanes;
      Vec score = load(at);
      if constexpr (kScaled) score = score * load(scales.keys + j + v * kLanes);
      const Lanes seen = lanes_below(j + v * kLanes, limit);
      score = (Vec)(((Lanes)score & seen) | ((Lanes)broadcast(-__builtin_inff()) & ~seen));
      if (kScaled || j + 16 > limit) store(at, score);
      largest[v] = maximum(score, largest[v]);
    }
  }
  return fold_lanes(largest, [](float a, float b) { return a > b ? a : b; });
}

// Scores to probabilities relative to the row's maximum; zero in the columns that may not be seen.
template <bool kScaled>
RS_INLINE RowSum soften_row(float* scores, int64_t limit, int64_t columns, const KeyScales& scales) {
  const float top = mask_scores<kScaled>(scores, limit, columns, scales);
  Vec sums[kSumVecs];
  for (int v = 0; v < kSumVecs; ++v) sums[v] = Vec{};
  for (int64_t j = 0; j < columns; j += 16) {
    for (int v = 0; v < kSumVecs; ++v) {
      float* const at = scores + j + v * kLanes;
      const Vec power = exponential(load(at) - broadcast(top));
      Vec probability = (Vec)((Lanes)power & lanes_below(j + v * kLanes, limit));
      sums[v] += probability;
      if constexpr (kScaled) probability = probability * load(scales.values + j + v * kLanes);
      store(at, probability);
    }
  }
  return {top, fold_lanes(sums, [](float a, float b) { return a + b; })};
}

void merge_key_block(float* row_maximum, float* row_sum, float* out, float block_maximum, float block_sum,
                     const float* block_out, int64_t channels) {
  const bool grows = block_maximum > *row_maximum;
  const float top = grows ? block_maximum : *row_maximum;
  const Vec old_weight = exponential(broadcast(*row_maximum - top));
  const Vec new_weight = exponential(broadcast(block_maximum - top));
  *row_maximum = top;
  *row_sum = fma(*row_sum, old_weight[0], block_sum * new_weight[0]);
  for (int64_t i = 0; i < channels; i += kLanes) {  // whole tiles of 32
    store(out + i, fma(load(out + i), old_weight, load(block_out + i) * new_weight));
  }
}

RS_INLINE int64_t largest_limit(const int32_t* limits, int64_t rows) {
  int32_t largest = 0;
  for (int64_t r = 0; r < rows; ++r) largest = limits[r] > largest ? limits[r] : largest;
  return largest;
}

// Tiles of what a block's rows see: score columns in whole groups, and the depth of the value product.
RS_INLINE int64_t score_tiles(int64_t seen) {
  constexpr int64_t kGroupKeys = kKvGroupTiles * kKvTileColumns;
  return (seen + kGroupKeys - 1) / kGroupKeys * kKvGroupTiles;
}

RS_INLINE KeyScales scales_of(const KeyBlock& block) {
  if (block.layout.format != RS_KV_Q8) return {};
  const int64_t offset = block.layout.scales_offset_bytes();
  return {reinterpret_cast<const float*>(block.keys + offset), reinterpret_cast<const float*>(block.values + offset)};
}

RS_INLINE int64_t value_tiles(const KvLayout& layout, int64_t seen) {
  return (seen + layout.tile_depth() - 1) / layout.tile_depth();
}

template <rs_kv_format kFormat>
void key_block_in_f32(const KeyBlock& block) {
  const int64_t channels = block.layout.channels();
  const KeyScales scales = scales_of(block);
  const TileGrid keys = key_grid(block.layout, block.keys);
  const TileGrid values = value_grid(block.layout, block.values);
  float* const scores = reinterpret_cast<float*>(block.scratch);
  float* const mixed = scores + kQueryGroupRows * RS_PAGE_TOKENS;
  for (int64_t row = 0; row < block.rows; row += kQueryGroupRows) {
    const int64_t rows = block.rows - row < kQueryGroupRows ? block.rows - row : kQueryGroupRows;
    const int32_t* limits = block.limits + row;
    const int64_t seen = largest_limit(limits, rows);
    if (seen == 0) continue;
    const int64_t depth_tiles = value_tiles(block.layout, seen);
    const float* queries = reinterpret_cast<const float*>(block.queries) + row * channels;
    multiply_grid<kFormat>({queries, channels}, rows, keys, score_tiles(seen), channels / kTileDepth<kFormat>,
                           {scores, RS_PAGE_TOKENS});
    RowSum sums[kQueryGroupRows];
    for (int64_t r = 0; r < rows; ++r) {
      sums[r] = soften_row<kFormat == RS_KV_Q8>(scores + r * RS_PAGE_TOKENS, limits[r],
                                                depth_tiles * kTileDepth<kFormat>, scales);
    }
    multiply_grid<kFormat>({scores, RS_PAGE_TOKENS}, rows, values, channels / kKvTileColumns, depth_tiles,
                           {mixed, channels});
    for (int64_t r = 0; r < rows; ++r) {
      if (limits[r] == 0) continue;
      merge_key_block(block.maximum + row + r, block.sum + row + r, block.out + (row + r) * channels, sums[r].maximum,
                      sums[r].sum, mixed + r * channels, channels);
    }
  }
}

void gather_queries_f32(const KvLayout& layout, const float* q, int64_t first_row, int64_t count, uint8_t* queries) {
  const int64_t d = layout.head_dim;
  const int64_t channels = layout.channels();
  float* to = reinterpret_cast<float*>(queries) + first_row * channels;
  for (int64_t r = 0; r < count; ++r, q += d, to += channels) {
    __builtin_memcpy(to, q, static_cast<unsigned long>(d) * sizeof(float));
    for (int64_t a = d; a < channels; ++a) to[a] = 0.0f;
  }
}

}  // namespace
}  // namespace ringside::cpu
