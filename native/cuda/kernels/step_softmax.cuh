// Owns: softmax attention of the step path: the new keys and values, partial results of pages (absolute blocks of 256
// positions), and their sum in ascending order. How positions are cut depends on the position alone.
//
// A unit is a page's keys and values of one kv head for up to 16 queries: rows of a part times the heads that share
// the kv head. Keys and values come through the ring; the new ones are put into it by the block that reads them.
#pragma once

#include "cuda/kernels/step_linear.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

inline constexpr int kUnitQueries = 16;
inline constexpr int kBlockPositions = kStepWarps * 16;       // of a piece: 16 of every warp
inline constexpr int kMergeQueries = 4;                       // whose warps' results are added up at once
inline constexpr int64_t kPagePart = kPageTokens * kHeadDim;  // keys or values of a page's head
inline constexpr float kLog2E = 1.4426950408889634f;

// Shared memory: queries as bf16, largest exponents and sums of warps, results of warps, one key row a warp.
inline constexpr int64_t kSoftmaxScratchBytes = kUnitQueries * kHeadDim * 2 + kStepWarps * kUnitQueries * 8 +
                                                kStepWarps * kMergeQueries * kHeadDim * 4 + kStepWarps * kHeadDim * 4;

struct SoftmaxUnit {
  const StepPart* part;
  int32_t part_number, first, rows;  // rows of the part that ask
  int32_t kv_head, page;
};

__device__ __forceinline__ int rows_of_pass(const StepShape& shape) {
  return kUnitQueries / (shape.heads / shape.kv_heads);
}
__device__ __forceinline__ int part_pages(const StepPart& part) {
  return static_cast<int>((part.session.position + part.rows - 1) / kPageTokens) + 1;
}
__device__ __forceinline__ int part_passes(const StepShape& shape, const StepPart& part) {
  const int rows = rows_of_pass(shape);
  return (part.rows + rows - 1) / rows;
}

__device__ __forceinline__ int softmax_units(const Step& s) {
  int units = 0;
  for (int p = 0; p < s.call().part_count; ++p) {
    units += part_passes(s.shape(), s.call().parts[p]) * s.shape().kv_heads * part_pages(s.call().parts[p]);
  }
  return units;
}

__device__ __forceinline__ SoftmaxUnit softmax_unit(const Step& s, int number) {
  int p = 0;
  for (;; ++p) {
    const int units = part_passes(s.shape(), s.call().parts[p]) * s.shape().kv_heads * part_pages(s.call().parts[p]);
    if (number < units) break;
    number -= units;
  }
  const StepPart& part = s.call().parts[p];
  const int pages = part_pages(part), pass = number / pages / s.shape().kv_heads, rows = rows_of_pass(s.shape());
  return {&part,         p, pass * rows, min(rows, part.rows - pass * rows), number / pages % s.shape().kv_heads,
          number % pages};
}

// A block's units are neighbours, so that their queries are mostly the same.
__device__ __forceinline__ int first_softmax_unit(const Step& s, int units, int block) {
  return static_cast<int>(static_cast<int64_t>(units) * block / s.blocks);
}

__device__ __forceinline__ bf16* page_keys(const Step& s, const SoftmaxUnit& u) {
  return u.part->session.pages[u.page] +
         (static_cast<int64_t>(s.layer().kind_index) * s.shape().kv_heads + u.kv_head) * 2 * kPagePart;
}

// Positions of a page's block that were there before this step, and whether any position is there now.
struct BlockPositions {
  int64_t begin;
  int32_t old_positions;
  bool is_empty;
};

__device__ __forceinline__ BlockPositions block_positions(const SoftmaxUnit& u, int block) {
  BlockPositions b;
  b.begin = static_cast<int64_t>(u.page) * kPageTokens + block * kBlockPositions;
  const int64_t old_positions = u.part->session.position - b.begin;
  b.old_positions = old_positions < 0                 ? 0
                    : old_positions > kBlockPositions ? kBlockPositions
                                                      : static_cast<int32_t>(old_positions);
  b.is_empty = b.begin >= u.part->session.position + u.part->rows;
  return b;
}

__device__ __forceinline__ void fetch_softmax(const Step& s, Fetch& fetch) {
  const int units = softmax_units(s);
  for (int i = first_softmax_unit(s, units, s.block); i < first_softmax_unit(s, units, s.block + 1); ++i) {
    const SoftmaxUnit u = softmax_unit(s, i);
    const bf16* keys = page_keys(s, u);
    for (int block = 0; block < kPageTokens / kBlockPositions; ++block) {
      const BlockPositions b = block_positions(u, block);
      if (b.is_empty) break;
      // Keys and values are one piece, so that a reader never holds one while the ring has no room for the other. Its
      // room is for all positions, also where the copies are shorter: the reader fills the rest.
      const uint32_t bytes = b.old_positions * kHeadDim * 2;
      const bf16* from = keys + block * kBlockPositions * kHeadDim;
      fetch.open(2 * bytes, 2 * kBlockPositions * kHeadDim * 2);
      fetch.copy(from, bytes);
      fetch.skip(kBlockPositions * kHeadDim * 2 - bytes);
      fetch.copy(from + kPagePart, bytes);
      fetch.close();
    }
  }
}

// Puts the new rows' keys and values of this block into the ring (and, `keep`, into the page), zeros behind them.
__device__ __forceinline__ void patch_block(const Step& s, const SoftmaxUnit& u, const BlockPositions& b, int block,
                                            bool keep, bf16* keys, bf16* values, float* row_of_warp) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t qkv_stride = 3 * static_cast<int64_t>(s.shape().width);
  bf16* page = page_keys(s, u);
  for (int i = b.old_positions + warp; i < kBlockPositions; i += kStepWarps) {
    const int r = static_cast<int>(b.begin + i - u.part->session.position);
    uint2 k = {0, 0}, v = {0, 0};
    if (r < u.part->rows) {
      const int row = u.part->first_row + r;
      const float* from = s.shape().qkv + row * qkv_stride + s.shape().width + u.kv_head * kHeadDim;
      float* normed = row_of_warp + warp * kHeadDim;
      norm_and_rotate(s, from, row, s.layer().key_norm, 1.0f, false, normed);
      const float4 a = load_float4(normed + lane * 4), c = load_float4(from + s.shape().kv_width + lane * 4);
      k = {pack_bf16(a.x, a.y), pack_bf16(a.z, a.w)};
      v = {pack_bf16(c.x, c.y), pack_bf16(c.z, c.w)};
      if (keep) {
        bf16* to = page + (block * kBlockPositions + i) * kHeadDim + lane * 4;
        *reinterpret_cast<uint2*>(to) = k;
        *reinterpret_cast<uint2*>(to + kPagePart) = v;
      }
      __syncwarp();
    }
    *reinterpret_cast<uint2*>(keys + i * kHeadDim + lane * 4) = k;
    *reinterpret_cast<uint2*>(values + i * kHeadDim + lane * 4) = v;
  }
#if __CUDA_ARCH__ >= 900
  // Copies of later pieces go through another proxy and may land where these stores were.
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  step_sync();
}

// Queries of a unit: index m = row * (heads of a kv head) + head; scaled so that exponents are of 2.
__device__ __forceinline__ void prepare_queries(const Step& s, const SoftmaxUnit& u, bf16* queries,
                                                float* row_of_warp) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sharing = s.shape().heads / s.shape().kv_heads;
  for (int m = warp; m < kUnitQueries; m += kStepWarps) {
    uint2 packed = {0, 0};
    if (m < u.rows * sharing) {
      const int row = u.part->first_row + u.first + m / sharing, head = u.kv_head * sharing + m % sharing;
      float* normed = row_of_warp + warp * kHeadDim;
      norm_and_rotate(s, s.shape().qkv + static_cast<int64_t>(row) * 3 * s.shape().width + head * kHeadDim, row,
                      s.layer().query_norm, kQueryScale * kLog2E, false, normed);
      const float4 a = load_float4(normed + lane * 4);
      packed = {pack_bf16(a.x, a.y), pack_bf16(a.z, a.w)};
      __syncwarp();
    }
    *reinterpret_cast<uint2*>(queries + m * kHeadDim + lane * 4) = packed;
  }
  step_sync();
}

// What a warp knows of its queries l / 4 and l / 4 + 8 so far. Column n of o[h][t] is dimension 64 h + 8 n + t.
struct WarpAttention {
  float largest[2], sum[2];
  float o[2][8][4];
};

// Exponents of 16 positions from `keys`, for all queries; masked where a position is behind the query's.
__device__ __forceinline__ void score_positions(const bf16* queries, const bf16* keys, int64_t first_position,
                                                const int64_t (&last)[2], float (&score)[2][4]) {
  const int lane = threadIdx.x & 31, q = lane % 4, n = lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) score[half][0] = score[half][1] = score[half][2] = score[half][3] = 0.0f;
#pragma unroll
  for (int block = 0; block < 4; ++block) {
    const uint4 low = load_16_bytes(queries + n * kHeadDim + block * 32 + q * 8);
    const uint4 high = load_16_bytes(queries + (n + 8) * kHeadDim + block * 32 + q * 8);
    const uint32_t a0[4] = {low.x, high.x, low.y, high.y}, a1[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 k = load_16_bytes(keys + (half * 8 + n) * kHeadDim + block * 32 + q * 8);
      mma_m16n8k16(score[half], a0, k.x, k.y);
      mma_m16n8k16(score[half], a1, k.z, k.w);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t position = first_position + half * 8 + q * 2 + i % 2;
      if (position > last[i / 2]) score[half][i] = -INFINITY;
    }
  }
}

__device__ __forceinline__ void add_positions(const bf16* values, const float (&score)[2][4], WarpAttention& w) {
  const int lane = threadIdx.x & 31, q = lane % 4, n = lane / 4;
  float p[2][4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float largest = fmaxf(fmaxf(score[0][2 * i], score[0][2 * i + 1]), fmaxf(score[1][2 * i], score[1][2 * i + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    largest = fmaxf(largest, w.largest[i]);
    const float zero = largest == -INFINITY ? 0.0f : largest;  // nothing yet: every power is of -inf
    const float shrink = exp2f(w.largest[i] - zero);
    w.largest[i] = largest;
    w.sum[i] *= shrink;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      p[half][2 * i] = exp2f(score[half][2 * i] - zero), p[half][2 * i + 1] = exp2f(score[half][2 * i + 1] - zero);
      w.sum[i] += p[half][2 * i] + p[half][2 * i + 1];
#pragma unroll
      for (int t = 0; t < 8; ++t) w.o[half][t][2 * i] *= shrink, w.o[half][t][2 * i + 1] *= shrink;
    }
  }
  const uint32_t a[4] = {pack_bf16(p[0][0], p[0][1]), pack_bf16(p[0][2], p[0][3]), pack_bf16(p[1][0], p[1][1]),
                         pack_bf16(p[1][2], p[1][3])};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    uint32_t v[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int position = 2 * q + i % 2 + i / 2 * 8;
      const uint4 row = load_16_bytes(values + position * kHeadDim + h * 64 + n * 8);
      v[i][0] = row.x, v[i][1] = row.y, v[i][2] = row.z, v[i][3] = row.w;
    }
#pragma unroll
    for (int t = 0; t < 8; ++t) {
      const uint32_t pick = t % 2 == 0 ? 0x5410u : 0x7632u;
      mma_m16n8k16(w.o[h][t], a, __byte_perm(v[0][t / 2], v[1][t / 2], pick),
                   __byte_perm(v[2][t / 2], v[3][t / 2], pick));
    }
  }
}

struct SoftmaxScratch {
  bf16* queries;       // [16, 128]
  float2* warp_ml;     // [warps, 16]
  float* merge;        // [warps, kMergeQueries, 128]
  float* row_of_warp;  // [warps, 128]
};

__device__ __forceinline__ SoftmaxScratch softmax_scratch(float* scratch) {
  SoftmaxScratch m;
  m.queries = reinterpret_cast<bf16*>(scratch);
  m.warp_ml = reinterpret_cast<float2*>(m.queries + kUnitQueries * kHeadDim);
  m.merge = reinterpret_cast<float*>(m.warp_ml + kStepWarps * kUnitQueries);
  m.row_of_warp = m.merge + kStepWarps * kMergeQueries * kHeadDim;
  return m;
}

// The page's result of all warps, for every query, to partial_o and partial_ml.
__device__ __forceinline__ void merge_warps(const Step& s, const SoftmaxUnit& u, WarpAttention& w,
                                            const SoftmaxScratch& m) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sharing = s.shape().heads / s.shape().kv_heads;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    w.sum[i] += __shfl_xor_sync(0xffffffffu, w.sum[i], 1);
    w.sum[i] += __shfl_xor_sync(0xffffffffu, w.sum[i], 2);
    if (lane % 4 == 0) m.warp_ml[warp * kUnitQueries + lane / 4 + 8 * i] = {w.largest[i], w.sum[i]};
  }
  step_sync();
  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float largest = -INFINITY;
#pragma unroll
    for (int k = 0; k < kStepWarps; ++k) largest = fmaxf(largest, m.warp_ml[k * kUnitQueries + lane / 4 + 8 * i].x);
    factor[i] = largest == -INFINITY ? 0.0f : exp2f(w.largest[i] - largest);
  }
  const int queries = u.rows * sharing;
  for (int first = 0; first < queries; first += kMergeQueries) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = lane / 4 + 8 * i - first;
      if (query < 0 || query >= kMergeQueries) continue;
      float* to = m.merge + (warp * kMergeQueries + query) * kHeadDim;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float* at = to + h * 64 + (lane % 4 * 2 + j) * 8;
#pragma unroll
          for (int t = 0; t < 8; t += 4) {
            *reinterpret_cast<float4*>(at + t) = {
                w.o[h][t][2 * i + j] * factor[i], w.o[h][t + 1][2 * i + j] * factor[i],
                w.o[h][t + 2][2 * i + j] * factor[i], w.o[h][t + 3][2 * i + j] * factor[i]};
          }
        }
      }
    }
    step_sync();
    for (int i = threadIdx.x; i < min(kMergeQueries, queries - first) * kHeadDim; i += kStepThreads) {
      const int query = first + i / kHeadDim;
      const int row = u.part->first_row + u.first + query / sharing, head = u.kv_head * sharing + query % sharing;
      const int64_t slot = (static_cast<int64_t>(row) * s.shape().heads + head) * s.call().pages + u.page;
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < kStepWarps; ++k) sum += m.merge[k * kMergeQueries * kHeadDim + i];
      s.shape().partial_o[slot * kHeadDim + i % kHeadDim] = sum;
      if (i % kHeadDim == 0) {
        float largest = -INFINITY, total = 0.0f;
        for (int k = 0; k < kStepWarps; ++k) largest = fmaxf(largest, m.warp_ml[k * kUnitQueries + query].x);
        for (int k = 0; k < kStepWarps && largest != -INFINITY; ++k) {
          const float2 ml = m.warp_ml[k * kUnitQueries + query];
          total += ml.y * exp2f(ml.x - largest);
        }
        s.shape().partial_ml[slot] = {largest, total};
      }
    }
    step_sync();
  }
}

__device__ __forceinline__ void attend_pages(const Step& s, float* scratch, Taker& taker) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sharing = s.shape().heads / s.shape().kv_heads;
  const SoftmaxScratch m = softmax_scratch(scratch);
  const int units = softmax_units(s), end = first_softmax_unit(s, units, s.block + 1);
  int part = -1, first = -1, kv_head = -1;
  for (int number = first_softmax_unit(s, units, s.block); number < end; ++number) {
    const SoftmaxUnit u = softmax_unit(s, number);
    if (u.part_number != part || u.first != first || u.kv_head != kv_head)
      prepare_queries(s, u, m.queries, m.row_of_warp);
    part = u.part_number, first = u.first, kv_head = u.kv_head;
    WarpAttention w;
    int64_t last[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      w.largest[i] = -INFINITY, w.sum[i] = 0.0f;
      last[i] = u.part->session.position + u.first + (lane / 4 + 8 * i) / sharing;
#pragma unroll
      for (int t = 0; t < 8; ++t) w.o[i][t][0] = w.o[i][t][1] = w.o[i][t][2] = w.o[i][t][3] = 0.0f;
    }
    for (int block = 0; block < kPageTokens / kBlockPositions; ++block) {
      const BlockPositions b = block_positions(u, block);
      if (b.is_empty) break;
      bf16* keys = reinterpret_cast<bf16*>(taker.wait(s));
      bf16* values = keys + kBlockPositions * kHeadDim;
      if (b.old_positions < kBlockPositions) {
        patch_block(s, u, b, block, u.first == 0, keys, values, m.row_of_warp);
      }
      float score[2][4];
      score_positions(m.queries, keys + warp * 16 * kHeadDim, b.begin + warp * 16, last, score);
      add_positions(values + warp * 16 * kHeadDim, score, w);
      taker.release(s);
    }
    merge_warps(s, u, w, m);
  }
}

// mixed = the pages' results of a row and head, added in ascending order: page p in sum p % 32, then the 32 sums.
// A unit is a row, a head and 32 of its columns.
__device__ __forceinline__ void merge_pages(const Step& s, float* scratch) {
  const int lane_page = threadIdx.x / 8, c = threadIdx.x % 8 * 4;
  const int units = s.call().rows * s.shape().heads * 4;
  for (int number = s.block; number < units; number += s.blocks) {
    const int column = number % 4 * 32 + c, head = number / 4 % s.shape().heads, row = number / 4 / s.shape().heads;
    const int pages = s.control().row_position[row] / static_cast<int>(kPageTokens) + 1;
    const int64_t slot = (static_cast<int64_t>(row) * s.shape().heads + head) * s.call().pages;
    const float2* ml = s.shape().partial_ml + slot;
    float largest = -INFINITY;
    for (int p = threadIdx.x & 31; p < pages; p += 32) largest = fmaxf(largest, ml[p].x);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    }
    float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
    float sum = 0.0f;
#pragma unroll 4
    for (int p = lane_page; p < pages; p += 32) {
      const float2 page = ml[p];
      const float4 v = load_float4(s.shape().partial_o + (slot + p) * kHeadDim + column);
      const float factor = exp2f(page.x - largest);
      o.x = fmaf(factor, v.x, o.x), o.y = fmaf(factor, v.y, o.y);
      o.z = fmaf(factor, v.z, o.z), o.w = fmaf(factor, v.w, o.w);
      sum = fmaf(factor, page.y, sum);
    }
    float* sums = scratch + 32 * 32;  // [32]
    *reinterpret_cast<float4*>(scratch + lane_page * 32 + c) = o;
    if (c == 0) sums[lane_page] = sum;
    step_sync();
    if (threadIdx.x < 32) {
      float value = 0.0f, total = 0.0f;
      for (int p = 0; p < 32; ++p) value += scratch[p * 32 + threadIdx.x], total += sums[p];
      s.shape().mixed[static_cast<int64_t>(row) * s.shape().width + head * kHeadDim + number % 4 * 32 + threadIdx.x] =
          value / total;
    }
    step_sync();
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
