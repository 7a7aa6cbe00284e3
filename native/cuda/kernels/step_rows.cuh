// Owns: what the step path does with a row between products: embedding, rotation angles, norms, gates. All of a row's
// sums have one order, whatever the number of rows.
#pragma once

#include "cuda/kernels/step_products.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

__device__ __forceinline__ float4 load_float4(const float* p) { return *reinterpret_cast<const float4*>(p); }

// One number of a matrix in fragment order.
__device__ __forceinline__ float matrix_value(const DeviceMatrix& m, int row, int column) {
  const int block_columns = static_cast<int>(m.block_columns()), lane_columns = block_columns / 4;
  const int64_t block = static_cast<int64_t>(row / 16) * (m.columns / block_columns) + column / block_columns;
  const int lane = row % 8 * 4 + column % block_columns / lane_columns, i = column % lane_columns;
  const uint8_t* bytes = m.blocks + block * kBlockBytes + lane * 16 + row % 16 / 8 * 8;
  if (m.format == MatrixFormat::kBF16) return __bfloat162float(reinterpret_cast<const bf16*>(bytes)[i]);
  float code;
  if (m.format == MatrixFormat::kQ8) {
    code = static_cast<float>(static_cast<int8_t>(bytes[i]));
  } else if (m.format == MatrixFormat::kQ4) {
    const int half_byte = i % 8 / 2 + i % 2 * 4;
    code =
        static_cast<float>(static_cast<int>(reinterpret_cast<const uint32_t*>(bytes)[i / 8] >> 4 * half_byte & 15) - 8);
  } else {
    code = __uint_as_float(fp8_pair<0>(bytes[i]) << 16);
  }
  const int64_t group = (static_cast<int64_t>(row / 16) * m.groups() + column / m.group_columns) * 16 + row % 16;
  return fmaf(code, m.scales[group], m.offsets != nullptr ? m.offsets[group] : 0.0f);
}

// The first residual and the angles of every row, shared out over blocks.
__device__ __forceinline__ void begin_rows(const Step& s) {
  const StepShape& shape = s.shape();
  const int thread = s.block * kStepThreads + threadIdx.x, threads = s.blocks * kStepThreads;
  for (int i = thread; i < s.call().rows * shape.hidden; i += threads) {
    const int row = i / shape.hidden;
    shape.residual[i] = matrix_value(shape.embedding, s.call().tokens[row], i % shape.hidden);
  }
  for (int i = thread; i < s.call().rows * shape.rotary_half; i += threads) {
    const int row = i / shape.rotary_half;
    // The angle is a product of two fp32 numbers, as in every other engine; its sine then needs the full reduction.
    const float angle = static_cast<float>(s.control().row_position[row]) * shape.inv_freq[i % shape.rotary_half];
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    shape.rotation[i] = {cosine, sine};
  }
}

// Everything that is loaded under a condition begins as zero: the compiler would else keep what was there the layer
// before, in memory, and after a barrier that has to come from L2.

// The weights of a norm that a thread multiplies the first columns by: they come while blocks wait for one another.
struct NormWeights {
  float4 v[2];
  __device__ NormWeights(const float* weight, int columns) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int c = (threadIdx.x + i * kStepThreads) * 4;
      v[i] = c < columns ? load_float4(weight + c) : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
  }
};

// out[r] = bf16(residual[r] * weight) for `count` rows from `first`; with `split`, what rounding took away follows as
// another `hidden` numbers. scale[r] = 1 / rms of the row, which products multiply their results by: so no sum is
// waited for before they begin. kAtOnce: rows whose loads are under way together.
// `sums`: kAtOnce * kStepWarps floats of shared memory.
template <int kAtOnce>
__device__ __forceinline__ void norm_step_rows(const float* residual, const NormWeights& weights, const float* weight,
                                               float eps, int hidden, int first, int count, bool split, bf16* out,
                                               int64_t stride, float* sums, float* scale) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int begin = first; begin < first + count; begin += kAtOnce) {
    const int rows = min(kAtOnce, first + count - begin);
    const float* from = residual + static_cast<int64_t>(begin) * hidden;
    float sum[kAtOnce] = {};
    float4 held[2] = {};  // of one row: neither is waited for alone
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int c = (threadIdx.x + i * kStepThreads) * 4;
      if (kAtOnce == 1 && c < hidden) held[i] = load_float4(from + c);
    }
    for (int c = threadIdx.x * 4, i = 0; c < hidden; c += kStepThreads * 4, ++i) {
      const float4 w = i > 1 ? load_float4(weight + c) : i == 0 ? weights.v[0] : weights.v[1];
      float4 row[kAtOnce] = {};
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        if (r >= rows) continue;
        row[r] = kAtOnce > 1 || i > 1 ? load_float4(from + static_cast<int64_t>(r) * hidden + c)
                 : i == 0             ? held[0]
                                      : held[1];
      }
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        if (r >= rows) continue;
        const float4 v = row[r];
        sum[r] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        const float x = v.x * w.x, y = v.y * w.y, z = v.z * w.z, u = v.w * w.w;
        bf16* to = out + (begin - first + r) * stride + c;
        const uint2 high = {pack_bf16(x, y), pack_bf16(z, u)};
        *reinterpret_cast<uint2*>(to) = high;
        if (!split) continue;
        const auto rest = [](float value, uint32_t bits) { return value - __uint_as_float(bits); };
        *reinterpret_cast<uint2*>(to + hidden) = {pack_bf16(rest(x, high.x << 16), rest(y, high.x & 0xffff0000u)),
                                                  pack_bf16(rest(z, high.y << 16), rest(u, high.y & 0xffff0000u))};
      }
    }
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      if (r >= rows) continue;
      sum[r] = warp_sum(sum[r]);
      if (lane == 0) sums[r * kStepWarps + warp] = sum[r];
    }
    step_sync();
    if (static_cast<int>(threadIdx.x) < rows) {
      float all = 0.0f;
#pragma unroll
      for (int w = 0; w < kStepWarps; ++w) all += sums[threadIdx.x * kStepWarps + w];
      scale[begin + threadIdx.x] = rsqrtf(all / static_cast<float>(hidden) + eps);
    }
    if (begin + kAtOnce < first + count) step_sync();
  }
}

// What gate_step_rows reads that was there before the last barrier, of one row.
struct GateInputs {
  float4 gate[2] = {}, weight[2] = {};
  __device__ GateInputs(const Step& s, int row) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int c = (threadIdx.x + i * kStepThreads) * 4;
      if (c >= s.shape().width) continue;
      gate[i] = load_float4(s.shape().gate + static_cast<int64_t>(row) * s.shape().width + c);
      weight[i] = load_float4(s.layer().output_norm + c);
    }
  }
};

// out[r] = grouped rmsnorm(mixed[r]) * weight * sigmoid(gate[r]), as bf16. A warp's 128 columns are a head's, and its
// group is whole heads. `sums`: kStepSums floats. `held`: of row `first`.
__device__ __forceinline__ void gate_step_rows(const Step& s, const GateInputs& held, int first, int count, bf16* out,
                                               int64_t stride, float* sums) {
  const StepShape& shape = s.shape();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = shape.width, heads = shape.heads;
  const int group_heads = heads / shape.norm_groups;
  const auto load_head = [&](int i) {
    return load_float4(shape.mixed + static_cast<int64_t>(first) * width + i * kHeadDim + lane * 4);
  };
  float4 mixed[2] = {};  // neither is waited for alone
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    if (warp + k * kStepWarps < count * heads) mixed[k] = load_head(warp + k * kStepWarps);
  }
  for (int i = warp, k = 0; i < count * heads; i += kStepWarps, ++k) {
    const float4 v = k > 1 ? load_head(i) : k == 0 ? mixed[0] : mixed[1];
    const float sum = warp_sum(v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w);
    if (lane == 0) sums[i] = sum;
  }
  step_sync();
  for (int i = warp; i < count * heads; i += kStepWarps) {
    const int row = count == 1 ? 0 : i / heads, head = i - row * heads, c = head * kHeadDim + lane * 4;
    const int64_t at = static_cast<int64_t>(first + row) * width + c;
    const bool is_first = i == warp, is_held = i < heads && (is_first || i == warp + kStepWarps);
    const float4 v = is_first ? mixed[0] : i == warp + kStepWarps ? mixed[1] : load_float4(shape.mixed + at);
    const float4 g = !is_held ? load_float4(shape.gate + at) : is_first ? held.gate[0] : held.gate[1];
    const float4 w = !is_held ? load_float4(s.layer().output_norm + c) : is_first ? held.weight[0] : held.weight[1];
    const float* group = sums + row * heads + head / group_heads * group_heads;
    float sum = 0.0f;
    for (int k = 0; k < group_heads; ++k) sum += group[k];
    const float scale = rsqrtf(sum / static_cast<float>(group_heads * kHeadDim) + shape.eps);
    const uint2 packed = {pack_bf16(v.x * scale * w.x * sigmoid(g.x), v.y * scale * w.y * sigmoid(g.y)),
                          pack_bf16(v.z * scale * w.z * sigmoid(g.z), v.w * scale * w.w * sigmoid(g.w))};
    *reinterpret_cast<uint2*>(out + row * stride + c) = packed;
  }
  step_sync();
}

// out[r] = bf16(mixed[r])
__device__ __forceinline__ void round_step_rows(const Step& s, int first, int count, bf16* out, int64_t stride) {
  const int width = s.shape().width;
#pragma unroll 2
  for (int i = threadIdx.x * 4; i < count * width; i += kStepThreads * 4) {
    const int row = i / width, c = i % width;
    const float4 v = load_float4(s.shape().mixed + static_cast<int64_t>(first + row) * width + c);
    *reinterpret_cast<uint2*>(out + row * stride + c) = {pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
  }
  step_sync();
}

// A copy of rows that another block prepared.
__device__ __forceinline__ void stage_rows(const bf16* from, int64_t from_stride, int rows, int columns, bf16* to,
                                           int64_t stride) {
  for (int row = 0; row < rows; ++row) {
    for (int c = threadIdx.x * 8; c < columns; c += kStepThreads * 8) {
      cp_async_16(shared_address(to + row * stride + c), from + row * from_stride + c);
    }
  }
  cp_async_commit();
}

// A copy of the inner activations, so that products find them in shared memory.
template <bool kOneRow>
__device__ __forceinline__ void copy_inner_rows(const Step& s, int columns, bf16* out, int64_t stride) {
  const int rows = kOneRow ? 1 : s.call().rows;
  for (int row = 0; row < rows; ++row) {
    const bf16* from = s.shape().inner + static_cast<int64_t>(row) * s.shape().inner_columns;
    for (int begin = threadIdx.x * 8; begin < columns; begin += 4 * kStepThreads * 8) {
      uint4 v[4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (begin + i * kStepThreads * 8 < columns) v[i] = load_16_bytes(from + begin + i * kStepThreads * 8);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (begin + i * kStepThreads * 8 < columns) {
          *reinterpret_cast<uint4*>(out + row * stride + begin + i * kStepThreads * 8) = v[i];
        }
      }
    }
  }
  step_sync();
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
