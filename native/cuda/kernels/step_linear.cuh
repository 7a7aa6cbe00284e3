// Owns: linear attention of the step path: the new rows of k and v, readout of S and the open rows, and S of a chunk
// that becomes complete (house rule 3a). All in fp32, without tensor cores.
//
// A unit is a part's head and one slice of its value columns; it alone reads that slice of S.
#pragma once

#include "cuda/kernels/step_rows.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

// Floats of shared memory for a part of `rows` rows.
__host__ __device__ constexpr int64_t linear_scratch_floats(int64_t rows) {
  return rows * (2 * kHeadDim + kSliceColumns + kChunkTokens + kStepWarps * kSliceColumns);
}

struct LinearUnit {
  const StepPart* part;
  int32_t head, slice, local, rows;
  int64_t state_head;  // of the layer's head among all layers
  float slope;
  float *q, *k, *v, *score, *reduction;  // shared: [rows, 128] twice, [rows, slice], [rows, 64], [rows, warps, slice]

  __device__ const float* state() const { return part->session.s + state_head * kHeadDim * kHeadDim; }
  __device__ float* open_k(int j) const { return part->session.open_k + (state_head * kChunkTokens + j) * kHeadDim; }
  __device__ float* open_v(int j) const { return part->session.open_v + (state_head * kChunkTokens + j) * kHeadDim; }
};

__device__ __forceinline__ LinearUnit linear_unit(const Step& s, int number, float* scratch) {
  LinearUnit u;
  u.slice = number % kStateSlices;
  u.head = number / kStateSlices % s.shape().heads;
  u.part = &s.call().parts[number / kStateSlices / s.shape().heads];
  u.local = static_cast<int32_t>(u.part->session.position % kChunkTokens);
  u.rows = u.part->rows;
  u.state_head = static_cast<int64_t>(s.layer().kind_index) * s.shape().heads + u.head;
  u.slope = s.layer().slopes[u.head];
  u.q = scratch;
  u.k = u.q + u.rows * kHeadDim;
  u.v = u.k + u.rows * kHeadDim;
  u.score = u.v + u.rows * kSliceColumns;
  u.reduction = u.score + u.rows * kChunkTokens;
  return u;
}

// A warp norms, rotates and scales 128 channels of q or k; the result is in `out`, shared memory.
__device__ __forceinline__ void norm_and_rotate(const Step& s, const float* from, int row, const float* weight,
                                                float factor, bool with_silu, float* out) {
  const int lane = threadIdx.x & 31, half = s.shape().rotary_half;
  float4 v = load_float4(from + lane * 4);
  if (with_silu) v = {silu(v.x), silu(v.y), silu(v.z), silu(v.w)};
  const float4 w = load_float4(weight + lane * 4);
  const float sum = warp_sum(v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w);
  const float scale = factor / sqrtf(sum / static_cast<float>(kHeadDim) + s.shape().eps);
  *reinterpret_cast<float4*>(out + lane * 4) = {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z,
                                                v.w * scale * w.w};
  __syncwarp();
#pragma unroll 1
  for (int j = lane; j < half; j += 32) {
    const float2 turn = s.shape().rotation[row * half + j];
    const float low = out[j], high = out[j + half];
    out[j] = low * turn.x - high * turn.y;
    out[j + half] = high * turn.x + low * turn.y;
  }
  __syncwarp();
}

inline constexpr float kQueryScale = 0.08838834764831845f;  // 128^-0.5

// q, k and the slice of v of the part's rows, in shared memory; k and v go into the open chunk as well.
__device__ __forceinline__ void new_linear_rows(const Step& s, const LinearUnit& u) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, width = s.shape().width;
  const bool with_silu = s.shape().linear_silu != 0;
  for (int i = warp; i < 2 * u.rows; i += kStepWarps) {
    const int r = i / 2, row = u.part->first_row + r;
    const float* from = s.shape().qkv + static_cast<int64_t>(row) * 3 * width + u.head * kHeadDim;
    if (i % 2 == 0) {
      norm_and_rotate(s, from, row, s.layer().query_norm, kQueryScale, with_silu, u.q + r * kHeadDim);
      continue;
    }
    float* k = u.k + r * kHeadDim;
    norm_and_rotate(s, from + width, row, s.layer().key_norm, 1.0f, with_silu, k);
    if (u.slice == 0) *reinterpret_cast<float4*>(u.open_k(u.local + r) + lane * 4) = load_float4(k + lane * 4);
  }
  for (int i = threadIdx.x; i < u.rows * kSliceColumns; i += kStepThreads) {
    const int r = i / kSliceColumns, c = u.slice * kSliceColumns + i % kSliceColumns;
    const float v =
        s.shape().qkv[static_cast<int64_t>(u.part->first_row + r) * 3 * width + 2 * width + u.head * kHeadDim + c];
    u.v[i] = with_silu ? silu(v) : v;
    u.open_v(u.local + r)[c] = u.v[i];
  }
}

// score[r][j] = exp(-s(i-j)) q_r · k_j for j <= i, else 0. Four threads a key; its older rows are in `old`.
__device__ __forceinline__ void score_linear_rows(const LinearUnit& u, const float4 (&old)[8]) {
  const int j = threadIdx.x / 4, quarter = threadIdx.x % 4;
  const int own = j - u.local;  // among the new rows
  float4 key[8];
#pragma unroll
  for (int m = 0; m < 8; ++m) {
    key[m] = own >= 0 && own < u.rows ? load_float4(u.k + own * kHeadDim + 16 * m + 4 * quarter) : old[m];
  }
  for (int r = 0; r < u.rows; ++r) {
    float dot = 0.0f;
#pragma unroll
    for (int m = 0; m < 8; ++m) {
      const float4 q = load_float4(u.q + r * kHeadDim + 16 * m + 4 * quarter);
      dot += q.x * key[m].x + q.y * key[m].y + q.z * key[m].z + q.w * key[m].w;
    }
    dot += __shfl_xor_sync(0xffffffffu, dot, 1);
    dot += __shfl_xor_sync(0xffffffffu, dot, 2);
    const int i = u.local + r;
    if (quarter == 0) {
      u.score[r * kChunkTokens + j] = j <= i ? expf(-u.slope * static_cast<float>(i - j)) * dot : 0.0f;
    }
  }
}

// S' of this slice: exp(-64 s) S + Σ_j exp(-s(63-j)) k_j v_j. Two threads a row of S.
__device__ __forceinline__ void complete_chunk(const LinearUnit& u) {
  const int a = threadIdx.x / 2, c = threadIdx.x % 2 * 8, column = u.slice * kSliceColumns + c;
  const float decay = expf(-u.slope * static_cast<float>(kChunkTokens));
  const float* from = u.state() + a * kHeadDim + column;
  float sum[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) sum[i] = decay * from[i];
  for (int j = 0; j < kChunkTokens; ++j) {
    const bool is_new = j >= u.local;
    const float k = is_new ? u.k[(j - u.local) * kHeadDim + a] : u.open_k(j)[a];
    const float* v = is_new ? u.v + (j - u.local) * kSliceColumns + c : u.open_v(j) + column;
    const float factor = expf(-u.slope * static_cast<float>(kChunkTokens - 1 - j)) * k;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = fmaf(factor, v[i], sum[i]);
  }
  float* to = u.part->next_s + (u.state_head * kHeadDim + a) * kHeadDim + column;
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = sum[i];
}

__device__ __forceinline__ int linear_units(const Step& s) {
  return s.call().part_count * s.shape().heads * kStateSlices;
}

// Asks for what linear_attention will read that does not depend on this layer's products.
__device__ __forceinline__ void hint_linear_attention(const Step& s) {
  for (int number = s.block; number < linear_units(s); number += s.blocks) {
    const LinearUnit u = linear_unit(s, number, nullptr);
    const int i = threadIdx.x;
    const float* at = i < 128 ? u.state() + i * kHeadDim + u.slice * kSliceColumns : nullptr;
    if (i >= 128 && i - 128 < u.local) at = u.open_v(i - 128) + u.slice * kSliceColumns;
    if (at != nullptr) asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
    // A head's keys are read by all its slices: each asks for its share.
    if (i < u.local && i % kStateSlices == u.slice) {
#pragma unroll
      for (int line = 0; line < 4; ++line) asm volatile("prefetch.global.L2 [%0];" ::"l"(u.open_k(i) + 32 * line));
    }
  }
}

__device__ __forceinline__ void linear_attention(const Step& s, float* scratch) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int number = s.block; number < linear_units(s); number += s.blocks) {
    const LinearUnit u = linear_unit(s, number, scratch);
    // Thread: rows g and g + 64 of S and row g of the open chunk, four columns; these loads wait for nobody.
    const int g = threadIdx.x / 4, c = threadIdx.x % 4 * 4, column = u.slice * kSliceColumns + c;
    const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
    const float4 s0 = load_float4(u.state() + g * kHeadDim + column);
    const float4 s1 = load_float4(u.state() + (g + 64) * kHeadDim + column);
    float4 v = g < u.local ? load_float4(u.open_v(g) + column) : zero;
    float4 old[8];
#pragma unroll
    for (int m = 0; m < 8; ++m) old[m] = g < u.local ? load_float4(u.open_k(g) + 16 * m + c) : zero;
    new_linear_rows(s, u);
    step_sync();
    if (g >= u.local && g - u.local < u.rows) v = load_float4(u.v + (g - u.local) * kSliceColumns + c);
    score_linear_rows(u, old);
    step_sync();
    for (int r = 0; r < u.rows; ++r) {
      const float q0 = u.q[r * kHeadDim + g], q1 = u.q[r * kHeadDim + g + 64];
      const float decay = expf(-u.slope * static_cast<float>(u.local + r + 1)), score = u.score[r * kChunkTokens + g];
      float o[4] = {decay * (q0 * s0.x + q1 * s1.x) + score * v.x, decay * (q0 * s0.y + q1 * s1.y) + score * v.y,
                    decay * (q0 * s0.z + q1 * s1.z) + score * v.z, decay * (q0 * s0.w + q1 * s1.w) + score * v.w};
#pragma unroll
      for (int step = 4; step < 32; step *= 2) {
#pragma unroll
        for (float& value : o) value += __shfl_xor_sync(0xffffffffu, value, step);
      }
      if (lane < 4) {
        *reinterpret_cast<float4*>(u.reduction + (r * kStepWarps + warp) * kSliceColumns + lane * 4) = {o[0], o[1],
                                                                                                        o[2], o[3]};
      }
    }
    step_sync();
    for (int i = threadIdx.x; i < u.rows * kSliceColumns; i += kStepThreads) {
      const int r = i / kSliceColumns, at = i % kSliceColumns;
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kStepWarps; ++w) sum += u.reduction[(r * kStepWarps + w) * kSliceColumns + at];
      s.shape().mixed[static_cast<int64_t>(u.part->first_row + r) * s.shape().width + u.head * kHeadDim +
                      u.slice * kSliceColumns + at] = sum;
    }
    if (u.local + u.rows == kChunkTokens && u.part->next_s != nullptr) complete_chunk(u);
    step_sync();
  }
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
