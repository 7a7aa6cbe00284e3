// Owns: how a head becomes ready for attention (norm, rotation, scale), and how keys and values go into a page.
// Must never: store a value that is not finite. Rows that may not see a position multiply its values by zero, which
// would make a NaN of an infinity; instead such a position gets values of zero and a key of NaN, which reaches exactly
// the rows that may see it.
#pragma once

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

// Sixteen strided sums, then pairs of them: the same order on every width of vectors.
RS_INLINE float sum_of_squares(const float* x, int64_t count) {
  constexpr int kVecs = 16 / kLanes;
  Vec sums[kVecs];
  for (int v = 0; v < kVecs; ++v) sums[v] = Vec{};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int v = 0; v < kVecs; ++v) {
      const Vec values = load(x + i + v * kLanes);
      sums[v] = fma(values, values, sums[v]);
    }
  }
  float lanes[16];
  for (int v = 0; v < kVecs; ++v) store(lanes + v * kLanes, sums[v]);
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] = fma(x[i], x[i], lanes[lane]);
  for (int half = 8; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// Channels j and j + half for as many j as V holds.
template <class V>
RS_INLINE void rotate_pairs(float* x, const HeadRotation& in, int64_t j) {
  const V a = load_as<V>(x + j);
  const V b = load_as<V>(x + j + in.half);
  const V cosine = load_as<V>(in.cosines + j);
  const V sine = load_as<V>(in.sines + j);
  store(x + j, fma(a, cosine, -(b * sine)));
  store(x + j + in.half, fma(b, cosine, a * sine));
}

void rotate_heads(const HeadRotation& in) {
  const int64_t d = in.head_dim;
  for (int64_t head = 0; head < in.heads; ++head) {
    float* const x = in.x + head * d;
    const float mean = sum_of_squares(x, d) / static_cast<float>(d) + in.eps;
    const float factor = in.scale / __builtin_sqrtf(mean);
    int64_t i = 0;
    for (; i + kLanes <= d; i += kLanes) store(x + i, load(x + i) * broadcast(factor) * load(in.weight + i));
    for (; i < d; ++i) x[i] = x[i] * factor * in.weight[i];
    int64_t j = 0;
    for (; j + kLanes <= in.half; j += kLanes) rotate_pairs<Vec>(x, in, j);
    for (; j < in.half; ++j) rotate_pairs<float>(x, in, j);
  }
}

// Of finite values to bf16, to nearest, ties to even; what would round to infinity becomes the largest bf16.
RS_INLINE uint16_t bf16_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<uint16_t>((rounded & 0x7fffU) == 0x7f80U ? rounded - 1 : rounded);
}

// The largest magnitude as bits, which order like the magnitudes themselves, infinity and NaN last.
RS_INLINE uint32_t largest_magnitude_bits(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffffU;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

RS_INLINE float float_of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Where the value of (column, depth) lies, counted in values.
RS_INLINE int64_t in_tile(rs_kv_format format, int64_t column, int64_t depth) {
  if (format == RS_KV_F32) return depth * kKvTileColumns + column;
  const int64_t run = format == RS_KV_Q8 ? 4 : 2;
  return (depth / run * kKvTileColumns + column) * run + depth % run;
}
RS_INLINE int64_t key_index(const KvLayout& layout, int64_t slot, int64_t channel) {
  const int64_t depth = layout.tile_depth();
  const int64_t tile = slot / kKvTileColumns * (layout.channels() / depth) + channel / depth;
  return tile * (kKvTileColumns * depth) + in_tile(layout.format, slot % kKvTileColumns, channel % depth);
}
RS_INLINE int64_t value_index(const KvLayout& layout, int64_t slot, int64_t channel) {
  const int64_t depth = layout.tile_depth();
  const int64_t tile = channel / kKvTileColumns * (RS_PAGE_TOKENS / depth) + slot / depth;
  return tile * (kKvTileColumns * depth) + in_tile(layout.format, channel % kKvTileColumns, slot % depth);
}

// One row of keys or values in the page's format; `index(channel)` says where.
template <class Index>
RS_INLINE void store_row(const KvLayout& layout, const float* x, float largest, int64_t slot, uint8_t* part,
                         const Index& index) {
  const int64_t d = layout.head_dim;
  if (layout.format == RS_KV_F32) {
    float* to = reinterpret_cast<float*>(part);
    for (int64_t a = 0; a < d; ++a) to[index(a)] = x[a];
  } else if (layout.format == RS_KV_BF16) {
    uint16_t* to = reinterpret_cast<uint16_t*>(part);
    for (int64_t a = 0; a < d; ++a) to[index(a)] = bf16_of(x[a]);
  } else {
    const float inverse = largest > 1e-36f ? 127.0f / largest : 0.0f;
    // Adding 1.5·2²³ rounds to the nearest whole number, ties to even.
    constexpr float kMagic = 12582912.0f;
    int8_t* to = reinterpret_cast<int8_t*>(part);
    for (int64_t a = 0; a < d; ++a) {
      const float shifted = x[a] * inverse + kMagic;
      to[index(a)] = static_cast<int8_t>(shifted - kMagic);
    }
    reinterpret_cast<float*>(part + layout.scales_offset_bytes())[slot] = largest / 127.0f;
  }
}

// A key of NaN and values of zero.
RS_INLINE void store_poison(const KvLayout& layout, int64_t slot, uint8_t* keys, uint8_t* values) {
  const float nan = __builtin_nanf("");
  for (int64_t a = 0; a < layout.head_dim; ++a) {
    const int64_t key = key_index(layout, slot, a);
    const int64_t value = value_index(layout, slot, a);
    if (layout.format == RS_KV_F32) {
      reinterpret_cast<float*>(keys)[key] = nan;
      reinterpret_cast<float*>(values)[value] = 0.0f;
    } else if (layout.format == RS_KV_BF16) {
      reinterpret_cast<uint16_t*>(keys)[key] = 0x7fc0;
      reinterpret_cast<uint16_t*>(values)[value] = 0;
    } else {
      keys[key] = 0;
      values[value] = 0;
    }
  }
  if (layout.format != RS_KV_Q8) return;
  reinterpret_cast<float*>(keys + layout.scales_offset_bytes())[slot] = nan;
  reinterpret_cast<float*>(values + layout.scales_offset_bytes())[slot] = 0.0f;
}

void append_keys(const KeyAppend& in) {
  const int64_t d = in.layout.head_dim;
  for (int64_t r = 0; r < in.rows; ++r) {
    const float* k = in.k + r * in.stride;
    const float* v = in.v + r * in.stride;
    const int64_t slot = in.first_slot + r;
    const uint32_t largest_key = largest_magnitude_bits(k, d);
    const uint32_t largest_value = largest_magnitude_bits(v, d);
    constexpr uint32_t kInfinity = 0x7f800000U;
    if (largest_key >= kInfinity || largest_value >= kInfinity) {
      store_poison(in.layout, slot, in.keys, in.values);
      continue;
    }
    store_row(in.layout, k, float_of_bits(largest_key), slot, in.keys,
              [&](int64_t a) { return key_index(in.layout, slot, a); });
    store_row(in.layout, v, float_of_bits(largest_value), slot, in.values,
              [&](int64_t a) { return value_index(in.layout, slot, a); });
  }
}

}  // namespace
}  // namespace ringside::cpu
