// Owns: softmax attention of the step path: the new keys and values, partial results of splits of the positions, and
// their sum. How positions are split, and in which order anything is added, depends on a row's position alone.
//
// A unit is a split of one kv head for some queries: rows of a part times the heads that share the kv head. One warp
// attends to it by itself: keys and values come from the page straight into its registers, in the layout in which the
// tensor cores take them, a tile ahead of their use. Nothing of a page ever lies in shared memory.
#pragma once

#include "cuda/kernels/attention_tile.cuh"
#include "cuda/kernels/step_linear.cuh"

namespace ringside::cuda {

inline constexpr int kTileQueries = 8;       // columns of one multiplication
inline constexpr int kMaxQueryTiles = 2;     // that a unit is for
inline constexpr int kMaxHeadsOfKv = 16;     // that share a kv head
inline constexpr int kMaxSplits = 2048;      // of a row
inline constexpr int kWarpMergeSplits = 32;  // up to so many partial results are added up by one warp
inline constexpr int kMergeColumns = 16;     // of a head, that a block adds up at once where there are more
inline constexpr int kQueryWords = kHeadDim / 4 * kTileQueries;  // of 8 bytes, of a tile of queries

// Shared memory: tiles of queries in the order of fragments, and one row a warp.
inline constexpr int64_t kSoftmaxScratchBytes = kMaxQueryTiles * kQueryWords * 8 + kStepWarps * kHeadDim * 4;

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

__device__ __forceinline__ int sharing_heads(const Step& s) { return s.shape().heads / s.shape().kv_heads; }

template <int kTiles>
__device__ __forceinline__ int softmax_units(const Step& s, const StepPart& part) {
  const int passes = (part.rows * sharing_heads(s) + kTiles * kTileQueries - 1) / (kTiles * kTileQueries);
  return passes * s.shape().kv_heads * split_count(part.session.position);
}

template <int kTiles>
__device__ __forceinline__ SoftmaxGroup softmax_group(const Step& s, int unit) {
  const StepPart* part = s.call().parts;
  for (int units; unit >= (units = softmax_units<kTiles>(s, *part)); ++part) unit -= units;
  SoftmaxGroup g;
  g.part = part;
  g.splits = split_count(part->session.position);
  g.split = unit % g.splits;
  g.kv_head = unit / g.splits % s.shape().kv_heads;
  g.first_query = unit / g.splits / s.shape().kv_heads * kTiles * kTileQueries;
  g.queries = min(kTiles * kTileQueries, part->rows * sharing_heads(s) - g.first_query);
  return g;
}

// Units are shared out over blocks as they follow one another, so that a block's have the same queries mostly.
struct UnitRange {
  int begin, end;
};
template <int kTiles>
__device__ __forceinline__ UnitRange units_of_block(const Step& s) {
  int64_t units = 0;
  for (int p = 0; p < s.call().part_count; ++p) units += softmax_units<kTiles>(s, s.call().parts[p]);
  return {static_cast<int>(units * s.block / s.blocks), static_cast<int>(units * (s.block + 1) / s.blocks)};
}
// A warp's of the next `count` splits of a group.
__device__ __forceinline__ UnitRange splits_of_warp(const SoftmaxGroup& g, int count, int warp) {
  return {g.split + count * warp / kStepWarps, g.split + count * (warp + 1) / kStepWarps};
}

// Scaled so that scores are logarithms to base 2.
template <bool kCodes>
__device__ __forceinline__ void prepare_queries(const Step& s, const SoftmaxGroup& g, uint2* queries,
                                                float* row_of_warp) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sharing = sharing_heads(s);
  // Four channels are a lane's share of one multiplication; a lane's numbers of a key lie side by side in memory.
  const int step = kCodes ? lane / 16 * 4 + lane % 4 : lane / 8 * 2 + lane % 2;
  const int quarter = kCodes ? lane / 4 % 4 : lane / 2 % 4;
  const int tiles = (g.queries + kTileQueries - 1) / kTileQueries;
  for (int m = warp; m < tiles * kTileQueries; m += kStepWarps) {
    uint2 packed = {0, 0};
    if (m < g.queries) {
      const int query = g.first_query + m, row = g.part->first_row + query / sharing;
      const int head = g.kv_head * sharing + query % sharing;
      float* normed = row_of_warp + warp * kHeadDim;
      norm_and_rotate(s, s.shape().qkv + static_cast<int64_t>(row) * 3 * s.shape().width + head * kHeadDim, row,
                      s.layer().query_norm, kQueryScale * kLog2E, false, normed);
      const float4 a = load_float4(normed + lane * 4);
      packed = {pack_bf16(a.x, a.y), pack_bf16(a.z, a.w)};
      __syncwarp();
    }
    queries[(m / kTileQueries * 8 + step) * 32 + m % kTileQueries * 4 + quarter] = packed;
  }
}

__device__ __forceinline__ uint8_t* page_of_head(const Step& s, const SoftmaxGroup& g, uint8_t* page) {
  return page + (static_cast<int64_t>(s.layer().kind_index) * s.shape().kv_heads + g.kv_head) * 2 *
                    page_part_bytes(s.shape().kv_format);
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

// The new rows' keys and values, to the page. All of a part's new rows lie in its last split. Where queries of a part
// are for several blocks, each of these writes the same bits: it reads only what it wrote itself.
template <bool kCodes>
__device__ __forceinline__ void store_new_rows(const Step& s, const SoftmaxGroup& g, float* row_of_warp) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  // The first warps have queries to prepare.
  for (int r = kStepWarps - 1 - warp; r < g.part->rows; r += kStepWarps) {
    const int row = g.part->first_row + r;
    const float* from =
        s.shape().qkv + static_cast<int64_t>(row) * 3 * s.shape().width + s.shape().width + g.kv_head * kHeadDim;
    float* normed = row_of_warp + warp * kHeadDim;
    norm_and_rotate(s, from, row, s.layer().key_norm, 1.0f, false, normed);
    const float4 k = load_float4(normed + lane * 4), v = load_float4(from + s.shape().kv_width + lane * 4);
    const int64_t position = g.part->session.position + r;
    const int slot = static_cast<int>(position % kPageTokens);
    uint8_t* keys = page_of_head(s, g, g.part->session.pages[position / kPageTokens]);
    KvScale key_scale{}, value_scale{};
    if constexpr (kCodes) {
      const auto largest = [](const float4& x) {
        return __reduce_max_sync(0xffffffffu, max(max(magnitude_bits(x.x), magnitude_bits(x.y)),
                                                  max(magnitude_bits(x.z), magnitude_bits(x.w))));
      };
      kv_scales(largest(k), largest(v), key_scale, value_scale);
    }
    store_row<kCodes>(k, slot, key_scale, keys);
    store_row<kCodes>(v, slot, value_scale, keys + page_part_bytes(s.shape().kv_format));
    __syncwarp();
  }
}

// Past L1, and first to leave L2: a step reads them once. Never by the read-only path: a step writes the new rows.
__device__ __forceinline__ uint4 load_page_16(const uint8_t* from, uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from), "l"(policy)
               : "memory");
  return v;
}
__device__ __forceinline__ float load_page_scale(const float* from) {
  float v;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(v) : "l"(from) : "memory");
  return v;
}

template <int kWord>
__device__ __forceinline__ uint32_t word_of(const uint4& v) {
  return kWord == 0 ? v.x : kWord == 1 ? v.y : kWord == 2 ? v.z : v.w;
}

// Keys and values of some positions in a warp's registers: 64 numbers of bf16 or 128 codes of each a lane.
//   keys    rows l / 4 + 8 i, of them the pieces of 16 bytes at 64 b + 16 (l % 4)
//   values  rows 16 (i / 4) + 2 (l % 4) + i % 2 + 8 (i / 2 % 2), of them the pieces at 128 h + 16 (l / 4)
template <bool kCodes>
struct KvTile {
  static constexpr int kPositions = kCodes ? 32 : 16;
  static constexpr int kParts = kPositions / 16;  // that one multiplication takes
  static constexpr int kRowBytes = kCodes ? kHeadDim : 2 * kHeadDim;
  static constexpr int kKeyPieces = kRowBytes / 64, kValuePieces = kRowBytes / 128;
  uint4 keys[8], values[8];
  float key_scales[kCodes ? 4 : 1], value_scales[kCodes ? 4 : 1];  // of rows l / 4 + 8 i

  // `last`: the last row that there is; those behind it are copies of it, which are numbers and count nothing.
  __device__ __forceinline__ void load_keys(const uint8_t* part, int slot, int last, uint64_t policy) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 8 / kKeyPieces; ++i) {
      const int row = min(lane / 4 + 8 * i, last);
      const uint8_t* from = part + (slot + row) * kRowBytes + lane % 4 * 16;
#pragma unroll
      for (int b = 0; b < kKeyPieces; ++b) keys[i * kKeyPieces + b] = load_page_16(from + b * 64, policy);
      if constexpr (kCodes) {
        key_scales[i] = load_page_scale(kv_page_scales(part) + slot + row);
      }
    }
  }
  __device__ __forceinline__ void load_values(const uint8_t* part, int slot, int last, uint64_t policy) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 8 / kValuePieces; ++i) {
      const int row = min(i / 4 * 16 + lane % 4 * 2 + i % 2 + i / 2 % 2 * 8, last);
      const uint8_t* from = part + (slot + row) * kRowBytes + lane / 4 * 16;
#pragma unroll
      for (int h = 0; h < kValuePieces; ++h) values[i * kValuePieces + h] = load_page_16(from + h * 128, policy);
    }
    if constexpr (kCodes) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = min(lane / 4 + 8 * i, last);
        value_scales[i] = load_page_scale(kv_page_scales(part) + slot + row);
      }
    }
  }

  // The A operand of a multiplication with 16 channels of the queries: rows are positions.
  template <int kStep, int kPart>
  __device__ __forceinline__ void key_fragment(uint32_t (&a)[4]) const {
    if constexpr (kCodes) {
      const uint32_t low = word_of<kStep % 4>(keys[kPart * 4 + kStep / 4]);
      const uint32_t high = word_of<kStep % 4>(keys[kPart * 4 + 2 + kStep / 4]);
      a[0] = q8_pair<0>(low), a[1] = q8_pair<0>(high), a[2] = q8_pair<1>(low), a[3] = q8_pair<1>(high);
    } else {
      const uint4 &low = keys[kStep / 2], &high = keys[4 + kStep / 2];
      a[0] = word_of<kStep % 2 * 2>(low), a[1] = word_of<kStep % 2 * 2>(high);
      a[2] = word_of<kStep % 2 * 2 + 1>(low), a[3] = word_of<kStep % 2 * 2 + 1>(high);
    }
  }
  // The A operand of a multiplication with 16 positions' weights: rows are channels.
  template <int kStep, int kPart>
  __device__ __forceinline__ void value_fragment(uint32_t (&a)[4]) const {
    constexpr int kWord = kStep / 2;
    if constexpr (kCodes) {
      constexpr uint32_t kPick = kStep % 2 == 0 ? 0x5140u : 0x7362u;
      const uint4* v = values + kPart * 4;
      const uint32_t low = __byte_perm(word_of<kWord>(v[0]), word_of<kWord>(v[1]), kPick);
      const uint32_t high = __byte_perm(word_of<kWord>(v[2]), word_of<kWord>(v[3]), kPick);
      a[0] = q8_pair<0>(low), a[1] = q8_pair<1>(low), a[2] = q8_pair<0>(high), a[3] = q8_pair<1>(high);
    } else {
      constexpr uint32_t kPick = kStep % 2 == 0 ? 0x5410u : 0x7632u;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = i / 2 * 2, half = i % 2;
        a[i] = __byte_perm(word_of<kWord>(values[row * 2 + half]), word_of<kWord>(values[row * 2 + 2 + half]), kPick);
      }
    }
  }
};

// A matrix of 8 x 8 numbers of 16 bits over a warp, lane l holding two of row l / 4; and its transpose.
__device__ __forceinline__ uint32_t transpose(uint32_t pair) {
  uint32_t out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

// What a warp knows so far of a tile of queries; a lane's are 2 (l % 4) and the one after it.
struct WarpAttention {
  float largest[2], sum[2];  // sum: of this lane's positions
  float o[8][4];             // [step][2 channel + query]

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int j = 0; j < 2; ++j) largest[j] = -INFINITY, sum[j] = 0.0f;
#pragma unroll
    for (int i = 0; i < 32; ++i) o[i / 4][i % 4] = 0.0f;
  }

  // Scores become weights relative to the largest score so far. score[part][2 half + query]: position l / 4 + 8 half.
  template <int kParts>
  __device__ __forceinline__ void weigh(float (&score)[kParts][4]) {
    float top[2] = {largest[0], largest[1]};
#pragma unroll
    for (int i = 0; i < kParts * 4; ++i) top[i % 2] = fmaxf(top[i % 2], score[i / 4][i % 4]);
    // That no query finds a larger score is the rule in long contexts.
    if (__any_sync(0xffffffffu, top[0] > largest[0] || top[1] > largest[1])) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int step = 4; step < 32; step *= 2) top[j] = fmaxf(top[j], __shfl_xor_sync(0xffffffffu, top[j], step));
        // Nothing yet: every power is of -inf.
        const float shrink = power_of_two(largest[j] - (top[j] == -INFINITY ? 0.0f : top[j]));
        largest[j] = top[j];
        sum[j] *= shrink;
#pragma unroll
        for (int t = 0; t < 8; ++t) o[t][j] *= shrink, o[t][2 + j] *= shrink;
      }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float zero = largest[j] == -INFINITY ? 0.0f : largest[j];
#pragma unroll
      for (int i = 0; i < kParts * 2; ++i) {
        float& p = score[i / 2][i % 2 * 2 + j];
        sum[j] += p = power_of_two(p - zero);
      }
    }
  }
};

template <int kValue>
struct Constant {
  static constexpr int kOf = kValue;
};
template <int kBegin, int kEnd, class Body>
__device__ __forceinline__ void for_constants(const Body& body) {
  if constexpr (kBegin < kEnd) {
    body(Constant<kBegin>());
    for_constants<kBegin + 1, kEnd>(body);
  }
}

// Partial results of a split, to partial_o and partial_ml.
template <bool kCodes>
__device__ __forceinline__ void store_partial(const Step& s, const SoftmaxGroup& g, int tile, int split,
                                              WarpAttention& w) {
  const int lane = threadIdx.x & 31, sharing = sharing_heads(s);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) w.sum[j] += __shfl_xor_sync(0xffffffffu, w.sum[j], step);
    const int m = tile * kTileQueries + lane % 4 * 2 + j;
    if (m >= g.queries) continue;
    const int query = g.first_query + m, row = g.part->first_row + query / sharing;
    const int64_t slot =
        (static_cast<int64_t>(row) * s.shape().heads + g.kv_head * sharing + query % sharing) * s.call().splits + split;
    if (lane < 4) s.shape().partial_ml[slot] = {w.largest[j], w.sum[j]};
    // Codes: 16 neighbouring channels of a lane; else twice eight.
    float* to = s.shape().partial_o + slot * kHeadDim + lane / 4 * (kCodes ? 16 : 8);
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
      float4 v;
      if constexpr (kCodes) {
        v = {w.o[i / 2][j], w.o[i / 2][2 + j], w.o[i / 2 + 1][j], w.o[i / 2 + 1][2 + j]};
      } else {
        const int t = i % 8, c = i / 8 * 2 + j;
        v = {w.o[t][c], w.o[t + 1][c], w.o[t + 2][c], w.o[t + 3][c]};
      }
      *reinterpret_cast<float4*>(to + (kCodes ? i : i / 8 * 64 + i % 8)) = v;
    }
  }
}

// Asks for the first keys and values that each warp will read, so that they come from L2 then: memory rests while the
// queries are made. By one warp of the block.
template <int kTiles>
__device__ __forceinline__ void hint_pages(const Step& s) {
  constexpr int kHintBytes = 8192;  // of the keys, and of the values: all of them together fit L2 well
  const int lane = threadIdx.x & 31;
  const UnitRange units = units_of_block<kTiles>(s);
  if (units.begin >= units.end || lane >= kStepWarps) return;
  const SoftmaxGroup g = softmax_group<kTiles>(s, units.begin);
  const UnitRange splits = splits_of_warp(g, min(units.end - units.begin, g.splits - g.split), lane);
  const int position = static_cast<int>(g.part->session.position), at = splits.begin << split_shift(position);
  if (splits.begin >= splits.end || at >= position) return;
  const int row_bytes = s.shape().kv_format == RS_KV_Q8 ? kHeadDim : 2 * kHeadDim;
  const int bytes = min(kHintBytes, (position - at) * row_bytes), slot = at % static_cast<int>(kPageTokens);
  const uint8_t* keys = page_of_head(s, g, g.part->session.pages[at / kPageTokens]) + slot * row_bytes;
  const uint8_t* values = keys + page_part_bytes(s.shape().kv_format);
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(keys), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(values), "r"(bytes) : "memory");
#else
  for (int i = 0; i < bytes; i += 128) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(keys + i));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(values + i));
  }
#endif
}

// One warp's splits of a group.
template <bool kCodes, int kTiles>
__device__ __forceinline__ void attend_splits(const Step& s, const SoftmaxGroup& g, const UnitRange& splits,
                                              const uint2* queries) {
  using Tile = KvTile<kCodes>;
  const int lane = threadIdx.x & 31, sharing = sharing_heads(s), tiles = (g.queries + kTileQueries - 1) / kTileQueries;
  const int position = static_cast<int>(g.part->session.position), held = position + g.part->rows;
  const int shift = split_shift(position), stop = min(splits.end << shift, held);
  uint8_t* const* pages = g.part->session.pages;
  const int64_t part_bytes = page_part_bytes(s.shape().kv_format);
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  int last[kTiles][2];
  WarpAttention w[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    w[t].clear();
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      last[t][j] = position + (g.first_query + t * kTileQueries + lane % 4 * 2 + j) / sharing;
    }
  }
  int at = splits.begin << shift;
  if (at >= stop) return;
  const int first_last = position + g.first_query / sharing;  // of the first query
  const int last_page = (held - 1) / static_cast<int>(kPageTokens);
  const auto page_number = [](int p) { return p / static_cast<int>(kPageTokens); };
  const uint8_t* keys = page_of_head(s, g, pages[page_number(at)]);
  uint8_t* following = pages[min(page_number(at) + 1, last_page)];  // asked for a page before it is needed
  Tile tile;
  tile.load_keys(keys, at % kPageTokens, held - 1 - at, policy);
  tile.load_values(keys + part_bytes, at % kPageTokens, held - 1 - at, policy);
  while (true) {
    const int next = at + Tile::kPositions, slot = next % static_cast<int>(kPageTokens);
    const bool more = next < stop;
    if (slot == 0) {
      keys = page_of_head(s, g, following);
      following = pages[min(page_number(next) + 1, last_page)];
    }
    float score[kTiles][Tile::kParts][4] = {};
    for_constants<0, 8>([&](auto step) {
      uint32_t a[Tile::kParts][4];
      for_constants<0, Tile::kParts>([&](auto part) { tile.template key_fragment<decltype(step)::kOf, decltype(part)::kOf>(a[decltype(part)::kOf]); });
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if (t > 0 && t >= tiles) continue;
        const uint2 b = queries[(t * 8 + decltype(step)::kOf) * 32 + lane];
#pragma unroll
        for (int part = 0; part < Tile::kParts; ++part) mma_m16n8k16(score[t][part], a[part], b.x, b.y);
      }
    });
    if constexpr (kCodes) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < Tile::kParts * 4; ++i) score[t][i / 4][i % 4] *= tile.key_scales[i / 2];
      }
    }
    if (more) tile.load_keys(keys, slot, held - 1 - next, policy);
    uint32_t weight[kTiles][Tile::kParts][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (t > 0 && t >= tiles) continue;
      if (next - 1 > first_last) {
#pragma unroll
        for (int i = 0; i < Tile::kParts * 4; ++i) {
          if (at + i / 2 * 8 + lane / 4 > last[t][i % 2]) score[t][i / 4][i % 4] = -INFINITY;
        }
      }
      w[t].weigh(score[t]);
#pragma unroll
      for (int i = 0; i < Tile::kParts * 2; ++i) {
        const float scale = kCodes ? tile.value_scales[i] : 1.0f;
        float low = score[t][i / 2][i % 2 * 2], high = score[t][i / 2][i % 2 * 2 + 1];
        if constexpr (kCodes) low *= scale, high *= scale;
        weight[t][i / 2][i % 2] = transpose(pack_bf16(low, high));
      }
    }
    for_constants<0, Tile::kParts>([&](auto part) {
      for_constants<0, 8>([&](auto step) {
        uint32_t a[4];
        tile.template value_fragment<decltype(step)::kOf, decltype(part)::kOf>(a);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if (t > 0 && t >= tiles) continue;
          mma_m16n8k16(w[t].o[decltype(step)::kOf], a, weight[t][decltype(part)::kOf][0], weight[t][decltype(part)::kOf][1]);
        }
      });
    });
    if (more) tile.load_values(keys + part_bytes, slot, held - 1 - next, policy);
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
  uint2* queries = reinterpret_cast<uint2*>(scratch);
  float* row_of_warp = reinterpret_cast<float*>(queries + kTiles * kQueryWords);
  UnitRange units = units_of_block<kTiles>(s);
  while (units.begin < units.end) {
    const SoftmaxGroup g = softmax_group<kTiles>(s, units.begin);
    const int count = min(units.end - units.begin, g.splits - g.split);
    prepare_queries<kCodes>(s, g, queries, row_of_warp);
    if (g.split + count == g.splits) store_new_rows<kCodes>(s, g, row_of_warp);
    step_sync();
    attend_splits<kCodes, kTiles>(s, g, splits_of_warp(g, count, threadIdx.x >> 5), queries);
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
  for (int i = warp * s.blocks + s.block; i < s.call().rows * heads; i += kStepWarps * s.blocks) {
    const int splits = splits_of(i / heads);
    if (splits <= kWarpMergeSplits) merge_few(s, i / heads, i % heads, splits);
  }
  if (s.call().splits <= kWarpMergeSplits) return;
  constexpr int kPieces = kHeadDim / kMergeColumns;
  for (int i = s.block; i < s.call().rows * heads * kPieces; i += s.blocks) {
    const int row = i / kPieces / heads, splits = splits_of(row);
    if (splits > kWarpMergeSplits) {
      merge_many(s, row, i / kPieces % heads, splits, i % kPieces * kMergeColumns, scratch);
    }
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
