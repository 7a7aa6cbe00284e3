// Owns: softmax attention of the step path: the new keys and values, partial results of splits of the positions, and
// their sum. How positions are split, and in which order anything is added, depends on a row's position alone.
//
// A unit is a split of one kv head for some queries: rows of a part times the heads that share the kv head. One warp
// attends to it by itself: keys and values come from the page straight into its registers, in the layout in which the
// tensor cores take them, before they are needed. Nothing of a page ever lies in shared memory.
#pragma once

#include <cuda_fp16.h>

#include <cstring>

#include "cuda/kernels/step_kv_tile.cuh"
#include "cuda/kernels/step_linear.cuh"

namespace ringside::cuda {

inline constexpr int kTileQueries = 8;       // columns of one multiplication
inline constexpr int kMaxQueryTiles = 2;     // that a unit is for
inline constexpr int kMaxHeadsOfKv = 16;     // that share a kv head
inline constexpr int kMaxSplits = 2048;      // of a row
inline constexpr int kWarpMergeSplits = 32;  // up to so many partial results are added up by one warp
inline constexpr int kMergeColumns = 16;     // of a head, that a block adds up at once where there are more
inline constexpr int kQueryWords = kHeadDim / 4 * kTileQueries;  // of 8 bytes, of a tile of queries

// Shared memory: tiles of queries in the order of fragments, their scales, and one row a warp.
inline constexpr int64_t kSoftmaxScratchBytes =
    kMaxQueryTiles * (kQueryWords * 8 + kTileQueries * 4) + kStepWarps * kHeadDim * 4;

// Logarithm of the positions of a split for a row at `position`: a chunk, and more where splits would be too many. It
// is the same for all rows of a chunk.
RS_HOST_DEVICE inline int split_shift(int64_t position) {
  int shift = 6;
  while (position >> shift >= kMaxSplits) ++shift;
  return shift;
}
RS_HOST_DEVICE inline int split_count(int64_t position) {
  return static_cast<int>(position >> split_shift(position)) + 1;
}

#if defined(__CUDACC__)

inline constexpr float kLog2E = 1.4426950408889634f;

// Queries of a part that read the same keys, and the splits of these that are left from `split` on.
struct SoftmaxGroup {
  const StepPart* part;
  int32_t first_query, queries, kv_head;  // query m of a part is row m / sharing, head m % sharing of the kv head
  int32_t split, splits;
};

// a / b of small numbers; a division of whole numbers is many instructions, and this code is mostly run cold.
__device__ __forceinline__ int quotient(int a, int b) {
  return static_cast<int>(__fdividef(static_cast<float>(a) + 0.5f, static_cast<float>(b)));
}
__device__ __forceinline__ int sharing_heads(const Step& s) { return quotient(s.shape().heads, s.shape().kv_heads); }

template <int kTiles>
__device__ __forceinline__ int softmax_units(const Step& s, const StepPart& part) {
  const int passes = (part.rows * sharing_heads(s) + kTiles * kTileQueries - 1) / (kTiles * kTileQueries);
  return passes * s.shape().kv_heads * split_count(part.session.position);
}

template <int kTiles>
__device__ __forceinline__ SoftmaxGroup softmax_group(const Step& s, int unit) {
  const StepPart* part = s.call().parts;
#pragma unroll 1
  for (int units; unit >= (units = softmax_units<kTiles>(s, *part)); ++part) unit -= units;
  SoftmaxGroup g;
  g.part = part;
  g.splits = split_count(part->session.position);
  const int group = unit / g.splits, pass = quotient(group, s.shape().kv_heads);
  g.split = unit - group * g.splits;
  g.kv_head = group - pass * s.shape().kv_heads;
  g.first_query = pass * kTiles * kTileQueries;
  g.queries = min(kTiles * kTileQueries, part->rows * sharing_heads(s) - g.first_query);
  return g;
}

// Units are shared out over blocks as they follow one another, so that a block's have the same queries mostly.
struct UnitRange {
  int begin, end;
};
template <int kTiles>
__device__ __forceinline__ UnitRange units_of_block(const Step& s) {
  int units = 0;
#pragma unroll 1
  for (int p = 0; p < s.call().part_count; ++p) units += softmax_units<kTiles>(s, s.call().parts[p]);
  const int each = units / s.blocks, more = units - each * s.blocks, begin = each * s.block + min(s.block, more);
  return {begin, begin + each + (s.block < more ? 1 : 0)};
}
// A warp's of the next `count` splits of a group.
__device__ __forceinline__ UnitRange splits_of_warp(const SoftmaxGroup& g, int count, int warp) {
  return {g.split + count * warp / kStepWarps, g.split + count * (warp + 1) / kStepWarps};
}

__device__ __forceinline__ uint8_t* page_of_head(const Step& s, const SoftmaxGroup& g, uint8_t* page) {
  return page + (static_cast<int64_t>(s.layer().kind_index) * s.shape().kv_heads + g.kv_head) * 2 *
                    page_part_bytes(s.shape().kv_format);
}

// Largest magnitude of a row of which every lane has four numbers, as bits.
__device__ __forceinline__ uint32_t warp_magnitude(const float4& x) {
  return __reduce_max_sync(
      0xffffffffu, max(max(magnitude_bits(x.x), magnitude_bits(x.y)), max(magnitude_bits(x.z), magnitude_bits(x.w))));
}

struct SoftmaxScratch {
  uint2* queries;       // [tile, step, lane]: B operands
  float* query_scales;  // [tile, 8], where keys are codes
  float* rows;          // [warp, 128]
};
template <int kTiles>
__device__ __forceinline__ SoftmaxScratch softmax_scratch(float* scratch) {
  SoftmaxScratch m;
  m.queries = reinterpret_cast<uint2*>(scratch);
  m.query_scales = reinterpret_cast<float*>(m.queries + kTiles * kQueryWords);
  m.rows = m.query_scales + kTiles * kTileQueries;
  return m;
}

// Query m of a group. Four channels are a lane's share of a multiplication, and a lane's numbers of a key lie side by
// side in memory. For keys of codes a query has 16 bits, as on the CPU: a high and a low byte, multiplied apart.
template <bool kCodes>
__device__ __forceinline__ void store_query(const SoftmaxScratch& to, int m, const float4& x) {
  const int lane = threadIdx.x & 31, tile = m / kTileQueries, n = m % kTileQueries;
  if constexpr (kCodes) {
    constexpr float kLimit = 32512.0f;  // 127 * 256, and a low byte that may be rounded down
    const uint32_t bits = warp_magnitude(x);
    const bool is_number = bits < 0x7f800000u;
    const float largest = __uint_as_float(bits), inverse = is_number && largest > 1e-30f ? kLimit / largest : 0.0f;
    const float values[4] = {x.x, x.y, x.z, x.w};
    uint32_t high = 0, low = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int value = __float2int_rn(values[i] * inverse);
      high |= ((value + 128) >> 8 & 0xff) << 8 * i, low |= (value & 0xff) << 8 * i;
    }
    uint2* const at = to.queries + (tile * 8 + lane / 16 * 2 + lane % 4 / 2) * 32 + n * 4 + lane / 4 % 4;
    reinterpret_cast<uint32_t*>(at)[lane % 2] = high;
    reinterpret_cast<uint32_t*>(at + 4 * 32)[lane % 2] = low;
    // A query that is no number gives nothing but NaN.
    if (lane == 0) to.query_scales[m] = is_number ? largest / kLimit : __uint_as_float(0x7fc00000u);
  } else {
    const int step = lane / 8 * 2 + lane % 2, quarter = lane / 2 % 4;
    to.queries[(tile * 8 + step) * 32 + n * 4 + quarter] = {pack_bf16(x.x, x.y), pack_bf16(x.z, x.w)};
  }
}

// Four channels of a key or a value, of every lane, to row `slot` of a page's part.
template <bool kCodes>
__device__ __forceinline__ void store_row(const float4& x, int slot, const KvScale& scale, uint8_t* part) {
  const int lane = threadIdx.x & 31;
  if constexpr (kCodes) {
    reinterpret_cast<uint32_t*>(part)[slot * 32 + lane] = kv_codes(x, scale);
    if (lane == 0) kv_page_scales(part)[slot] = scale.scale;
  } else {
    reinterpret_cast<uint2*>(part)[slot * 32 + lane] = {pack_bf16(x.x, x.y), pack_bf16(x.z, x.w)};
  }
}

// The queries, scaled so that scores are logarithms to base 2, and, `with_rows`, the new rows' keys and values, to the
// page. All of a part's new rows lie in its last split. Where queries of a part are for several blocks, each of these
// writes the same bits: it reads only what it wrote itself.
template <bool kCodes>
__device__ __forceinline__ void prepare_group(const Step& s, const SoftmaxGroup& g, bool with_rows,
                                              const SoftmaxScratch& to) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sharing = sharing_heads(s), width = s.shape().width;
  float* normed = to.rows + warp * kHeadDim;
#pragma unroll 1
  for (int i = warp; i < g.queries + (with_rows ? g.part->rows : 0); i += kStepWarps) {
    const bool is_query = i < g.queries;
    const int query = g.first_query + i, r = is_query ? quotient(query, sharing) : i - g.queries,
              row = g.part->first_row + r;
    const int column = is_query ? (g.kv_head * sharing + query - r * sharing) * kHeadDim : width + g.kv_head * kHeadDim;
    const float* from = s.shape().qkv + row * 3 * width + column;
    norm_and_rotate(s, from, row, is_query ? s.layer().query_norm : s.layer().key_norm,
                    is_query ? kQueryScale * kLog2E : 1.0f, false, normed);
    const float4 x = load_float4(normed + lane * 4);
    if (is_query) {
      store_query<kCodes>(to, i, x);
    } else {
      const float4 value = load_float4(from + s.shape().kv_width + lane * 4);
      const int position = static_cast<int>(g.part->session.position) + r;
      const int slot = position % static_cast<int>(kPageTokens);
      uint8_t* keys = page_of_head(s, g, g.part->session.pages[position / static_cast<int>(kPageTokens)]);
      KvScale key_scale{}, value_scale{};
      if constexpr (kCodes) kv_scales(warp_magnitude(x), warp_magnitude(value), key_scale, value_scale);
      store_row<kCodes>(x, slot, key_scale, keys);
      store_row<kCodes>(value, slot, value_scale, keys + page_part_bytes(s.shape().kv_format));
    }
    __syncwarp();
  }
  const int slots = (g.queries + kTileQueries - 1) / kTileQueries * kTileQueries;
#pragma unroll 1
  for (int m = g.queries + warp; m < slots; m += kStepWarps) store_query<kCodes>(to, m, {0.0f, 0.0f, 0.0f, 0.0f});
}

// A matrix of 8 x 8 numbers of 16 bits over a warp, lane l holding two of row l / 4; and its transpose.
__device__ __forceinline__ uint32_t transpose(uint32_t pair) {
  uint32_t out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}
__device__ __forceinline__ uint32_t pack_half(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, 4);
  return bits;
}

// What a warp knows so far of a tile of queries; a lane's are 2 (l % 4) and the one after it.
//
// Weights of codes of values are multiplied with their scales and divided by a unit, so that they are at most 1: fp16
// has no room for more. It is a power of two, which rounds nothing, and grows with the largest scale that the query
// saw.
template <bool kCodes>
struct WarpAttention {
  using Tile = KvTile<kCodes>;
  static constexpr float kLeastUnit = 0x1p-100f;
  float largest[2], sum[2];       // sum: of this lane's positions
  float o[8][4];                  // [step][2 channel + query]
  float weights[kCodes ? 4 : 1];  // sums of what values were multiplied with, of the lane's queries
  float unit[2], inverse[2];      // of codes

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      largest[j] = -INFINITY, sum[j] = 0.0f;
      unit[j] = kLeastUnit, inverse[j] = 1.0f / kLeastUnit;
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) o[i / 4][i % 4] = 0.0f;
#pragma unroll
    for (float& weight : weights) weight = 0.0f;
  }

  __device__ __forceinline__ void scale_results(float first, float second) {
#pragma unroll
    for (int i = 0; i < 32; ++i) o[i / 4][i % 4] *= i % 2 == 0 ? first : second;
#pragma unroll
    for (int i = 0; i < (kCodes ? 4 : 0); ++i) weights[i] *= i % 2 == 0 ? first : second;
  }

  __device__ __forceinline__ static float largest_of_query(float x) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
  }

  // Scores become weights relative to the largest score so far.
  __device__ __forceinline__ void weigh(float (&score)[Tile::kParts][4]) {
    float top[2] = {largest[0], largest[1]};
#pragma unroll
    for (int i = 0; i < Tile::kParts * 4; ++i) top[i % 2] = fmaxf(top[i % 2], score[i / 4][i % 4]);
    // That no query finds a larger score is the rule in long contexts.
    if (__any_sync(0xffffffffu, top[0] > largest[0] || top[1] > largest[1])) {
      float shrink[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        top[j] = largest_of_query(top[j]);
        // Nothing yet: every power is of -inf.
        shrink[j] = power_of_two(largest[j] - (top[j] == -INFINITY ? 0.0f : top[j]));
        largest[j] = top[j];
        sum[j] *= shrink[j];
      }
      scale_results(shrink[0], shrink[1]);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float zero = largest[j] == -INFINITY ? 0.0f : largest[j];
#pragma unroll
      for (int i = 0; i < Tile::kParts * 2; ++i) {
        float& p = score[i / 2][i % 2 * 2 + j];
        sum[j] += p = power_of_two(p - zero);
      }
    }
  }

  // Units for the weights of positions with these scales. A position that a query does not see has no say: its row's
  // bits would else depend on the rows behind it.
  __device__ __forceinline__ void fit_units(const float (&weight)[Tile::kParts][4], const float (&scales)[4]) {
    const float top = fmaxf(fmaxf(scales[0], scales[1]), fmaxf(scales[2], scales[3]));
    if (!__any_sync(0xffffffffu, top > unit[0] || top > unit[1])) return;
    float shrink[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float seen = unit[j];
#pragma unroll
      for (int i = 0; i < Tile::kParts * 2; ++i) {
        if (weight[i / 2][i % 2 * 2 + j] > 0.0f) seen = fmaxf(seen, scales[i]);
      }
      const uint32_t bits = (__float_as_uint(largest_of_query(seen)) + 0x7fffffu) & 0x7f800000u;
      shrink[j] = unit[j] * __uint_as_float(0x7f000000u - bits);
      unit[j] = __uint_as_float(bits), inverse[j] = __uint_as_float(0x7f000000u - bits);
    }
    scale_results(shrink[0], shrink[1]);
  }

  __device__ __forceinline__ void multiply_values(const uint32_t (&a)[4], const uint32_t (&weight)[2], int step) {
    if constexpr (kCodes) {
      mma_half(o[step], a, weight[0], weight[1]);
    } else {
      mma_m16n8k16(o[step], a, weight[0], weight[1]);
    }
  }
};

// Partial results of a split, to partial_o and partial_ml.
template <bool kCodes>
__device__ __forceinline__ void store_partial(const Step& s, const SoftmaxGroup& g, int tile, int split,
                                              WarpAttention<kCodes>& w) {
  const int lane = threadIdx.x & 31, sharing = sharing_heads(s);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) w.sum[j] += __shfl_xor_sync(0xffffffffu, w.sum[j], step);
    const int m = tile * kTileQueries + lane % 4 * 2 + j;
    if (m >= g.queries) continue;
    const int query = g.first_query + m, r = quotient(query, sharing), head = g.kv_head * sharing + query - r * sharing;
    const int64_t slot = ((g.part->first_row + r) * s.shape().heads + head) * s.call().splits + split;
    if (lane < 4) s.shape().partial_ml[slot] = {w.largest[j], w.sum[j]};
    // Of codes a lane has 16 neighbouring channels, else twice eight.
    float* to = s.shape().partial_o + slot * kHeadDim + lane / 4 * (kCodes ? 16 : 8);
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
      float v[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if constexpr (kCodes) {
          v[c] = fmaf(-1152.0f, w.weights[j], w.o[(i + c) / 2][(i + c) % 2 * 2 + j]) * w.unit[j];
        } else {
          v[c] = w.o[(i + c) % 8][(i + c) / 8 * 2 + j];
        }
      }
      *reinterpret_cast<float4*>(to + (kCodes ? i : i / 8 * 64 + i % 8)) = {v[0], v[1], v[2], v[3]};
    }
  }
}

// One warp's splits of a group. Values are asked for when the keys are through, together with the next keys: of loads
// that go on from one turn to the next the compiler waits for all at once.
template <bool kCodes, int kTiles>
__device__ __forceinline__ void attend_splits(const Step& s, const SoftmaxGroup& g, const UnitRange& splits,
                                              const SoftmaxScratch& m) {
  using Tile = KvTile<kCodes>;
  constexpr int kPage = static_cast<int>(kPageTokens);
  const int lane = threadIdx.x & 31, tiles = quotient(g.queries + kTileQueries - 1, kTileQueries);
  const int position = static_cast<int>(g.part->session.position), held = position + g.part->rows;
  const int shift = split_shift(position), stop = min(splits.end << shift, held);
  int at = splits.begin << shift;
  if (at >= stop) return;
  uint8_t* const* pages = g.part->session.pages;
  const int64_t part_bytes = page_part_bytes(s.shape().kv_format);
  const uint8_t* keys = page_of_head(s, g, pages[at / kPage]);
  Tile tile;
  tile.load_keys(keys, at % kPage);
  uint8_t* following = pages[min(at / kPage + 1, (held - 1) / kPage)];  // asked for a page before it is needed
  WarpAttention<kCodes> w[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) w[t].clear();
#pragma unroll 1
  while (true) {
    float score[kTiles][Tile::kParts][4];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (t == 0 || t < tiles) {
        tile.multiply_keys(m.queries + t * kQueryWords, m.query_scales + t * kTileQueries, score[t]);
      }
    }
    tile.load_values(keys + part_bytes, at % kPage);
    const int next = at + Tile::kPositions;
    const bool more = next < stop;
    if (next % kPage == 0) {
      keys = page_of_head(s, g, following);
      following = pages[min(next / kPage + 1, (held - 1) / kPage)];
    }
    if (more) tile.load_keys(keys, next % kPage);
    if (next > position) {
      tile.clear_values(held - at);
#pragma unroll
      for (int i = 0; i < kTiles * Tile::kParts * 4; ++i) {
        const int t = i / (Tile::kParts * 4), c = i % (Tile::kParts * 4);
        const int row = quotient(g.first_query + t * kTileQueries + lane % 4 * 2 + c % 2, sharing_heads(s));
        if (at + c / 2 * 8 + lane / 4 > position + row) score[t][c / 4][c % 4] = -INFINITY;
      }
    }
    uint32_t weight[kTiles][Tile::kParts][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (t > 0 && t >= tiles) continue;
      w[t].weigh(score[t]);
      if constexpr (kCodes) w[t].fit_units(score[t], tile.value_scales);
#pragma unroll
      for (int i = 0; i < Tile::kParts * 2; ++i) {
        const float low = score[t][i / 2][i % 2 * 2], high = score[t][i / 2][i % 2 * 2 + 1];
        uint32_t pair;
        if constexpr (kCodes) {
          const float scale = tile.value_scales[i];
          pair = pack_half(low * (scale * w[t].inverse[0]), high * (scale * w[t].inverse[1]));
        } else {
          pair = pack_bf16(low, high);
        }
        weight[t][i / 2][i % 2] = transpose(pair);
      }
    }
    for_constants<0, Tile::kParts>([&](auto part) {
      constexpr int kPart = decltype(part)::kOf;
      for_constants<0, 8>([&](auto step) {
        constexpr int kStep = decltype(step)::kOf;
        uint32_t a[4];
        tile.template value_fragment<kStep, kPart>(a);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (t == 0 || t < tiles) w[t].multiply_values(a, weight[t][kPart], kStep);
        }
      });
      if constexpr (kCodes) {
        constexpr uint32_t kOnes[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (t == 0 || t < tiles) mma_half(w[t].weights, kOnes, weight[t][kPart][0], weight[t][kPart][1]);
        }
      }
    });
    if (!more || (next & ((1 << shift) - 1)) == 0) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (t > 0 && t >= tiles) continue;
        store_partial<kCodes>(s, g, t, at >> shift, w[t]);
        w[t].clear();
      }
    }
    if (!more) break;
    at = next;
  }
}

template <bool kCodes, int kTiles>
__device__ __noinline__ void attend_pages_of(const Step s, float* scratch) {
  const SoftmaxScratch m = softmax_scratch<kTiles>(scratch);
  UnitRange units = units_of_block<kTiles>(s);
#pragma unroll 1
  while (units.begin < units.end) {
    const SoftmaxGroup g = softmax_group<kTiles>(s, units.begin);
    const int count = min(units.end - units.begin, g.splits - g.split);
    prepare_group<kCodes>(s, g, g.split + count == g.splits, m);
    step_sync();
    attend_splits<kCodes, kTiles>(s, g, splits_of_warp(g, count, threadIdx.x >> 5), m);
    step_sync();
    units.begin += count;
  }
}

// kTiles: of eight queries, that keys are read for at once.
template <int kTiles>
__device__ __forceinline__ void attend_pages(const Step& s, float* scratch) {
  if (s.shape().kv_format == RS_KV_Q8) {
    attend_pages_of<true, kTiles>(s, scratch);
  } else {
    attend_pages_of<false, kTiles>(s, scratch);
  }
}

__device__ __forceinline__ void add_scaled(float factor, const float4& v, float4& o) {
  o.x = fmaf(factor, v.x, o.x), o.y = fmaf(factor, v.y, o.y);
  o.z = fmaf(factor, v.z, o.z), o.w = fmaf(factor, v.w, o.w);
}

// mixed of a row and head, by one warp: splits in ascending order.
__device__ __forceinline__ void merge_few(const Step& s, int row, int head, int splits) {
  const int lane = threadIdx.x & 31;
  const int64_t slot = (static_cast<int64_t>(row) * s.shape().heads + head) * s.call().splits;
  float2 ml = {-INFINITY, 0.0f};
  if (lane < splits) ml = s.shape().partial_ml[slot + lane];
  float largest = ml.x;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  const float factor = lane < splits ? power_of_two(ml.x - largest) : 0.0f;
  const float total = warp_sum(factor * ml.y);
  float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
  for (int p = 0; p < splits; ++p) {
    add_scaled(__shfl_sync(0xffffffffu, factor, p), load_float4(s.shape().partial_o + (slot + p) * kHeadDim + lane * 4),
               o);
  }
  const float scale = 1.0f / total;
  *reinterpret_cast<float4*>(s.shape().mixed + static_cast<int64_t>(row) * s.shape().width + head * kHeadDim +
                             lane * 4) = {o.x * scale, o.y * scale, o.z * scale, o.w * scale};
}

// kMergeColumns columns of mixed of a row and head, by the block: split p in sum p % classes, then the sums of a warp
// in pairs, then those of the warps.
__device__ __forceinline__ void merge_many(const Step& s, int row, int head, int splits, int first_column,
                                           float* scratch) {
  constexpr int kVectors = kMergeColumns / 4, kClasses = kStepThreads / kVectors, kAtOnce = 8;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = threadIdx.x % kVectors * 4;
  const int64_t slot = (static_cast<int64_t>(row) * s.shape().heads + head) * s.call().splits;
  const float* from = s.shape().partial_o + slot * kHeadDim + first_column + column;
  const float2* ml = s.shape().partial_ml + slot;
  float largest = -INFINITY, sum = 0.0f;
  float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
  for (int begin = threadIdx.x / kVectors; begin < splits; begin += kAtOnce * kClasses) {
    float2 of[kAtOnce];
    float4 v[kAtOnce];
    float top = largest;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int p = begin + i * kClasses;
      of[i] = p < splits ? ml[p] : make_float2(-INFINITY, 0.0f);
      v[i] = p < splits ? load_float4(from + static_cast<int64_t>(p) * kHeadDim) : float4{};
      top = fmaxf(top, of[i].x);
    }
    // Of its own rows a row sees every split's first position, so there is a largest.
    const float shrink = power_of_two(largest - top);
    largest = top, sum *= shrink;
    o.x *= shrink, o.y *= shrink, o.z *= shrink, o.w *= shrink;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float factor = power_of_two(of[i].x - top);
      sum = fmaf(factor, of[i].y, sum);
      add_scaled(factor, v[i], o);
    }
  }
  float top = largest;
#pragma unroll
  for (int step = kVectors; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
  const float factor = top == -INFINITY ? 0.0f : power_of_two(largest - top);
  float values[5] = {o.x * factor, o.y * factor, o.z * factor, o.w * factor, sum * factor};
#pragma unroll
  for (float& value : values) {
#pragma unroll
    for (int step = kVectors; step < 32; step *= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  }
  float *sums = scratch, *tops = scratch + kStepWarps * kMergeColumns, *totals = tops + kStepWarps;
  if (lane < kVectors) {
    *reinterpret_cast<float4*>(sums + warp * kMergeColumns + column) = {values[0], values[1], values[2], values[3]};
    if (lane == 0) tops[warp] = top, totals[warp] = values[4];
  }
  step_sync();
  if (threadIdx.x < kMergeColumns) {
    float all_top = -INFINITY, value = 0.0f, total = 0.0f;
#pragma unroll
    for (int k = 0; k < kStepWarps; ++k) all_top = fmaxf(all_top, tops[k]);
#pragma unroll
    for (int k = 0; k < kStepWarps; ++k) {
      const float of_warp = power_of_two(tops[k] - all_top);
      value = fmaf(of_warp, sums[k * kMergeColumns + threadIdx.x], value);
      total = fmaf(of_warp, totals[k], total);
    }
    s.shape().mixed[static_cast<int64_t>(row) * s.shape().width + head * kHeadDim + first_column + threadIdx.x] =
        value / total;
  }
  step_sync();
}

// mixed = the splits' results of every row and head, added up.
__device__ __forceinline__ void merge_pages(const Step& s, float* scratch) {
  const int heads = s.shape().heads, warp = threadIdx.x >> 5;
  const auto splits_of = [&](int row) { return split_count(s.control().row_position[row]); };
#pragma unroll 1
  for (int i = warp * s.blocks + s.block; i < s.call().rows * heads; i += kStepWarps * s.blocks) {
    const int splits = splits_of(i / heads);
    if (splits <= kWarpMergeSplits) merge_few(s, i / heads, i % heads, splits);
  }
  if (s.call().splits <= kWarpMergeSplits) return;
  constexpr int kPieces = kHeadDim / kMergeColumns;
#pragma unroll 1
  for (int i = s.block; i < s.call().rows * heads * kPieces; i += s.blocks) {
    const int row = i / kPieces / heads, splits = splits_of(row);
    if (splits > kWarpMergeSplits) {
      merge_many(s, row, i / kPieces % heads, splits, i % kPieces * kMergeColumns, scratch);
    }
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
