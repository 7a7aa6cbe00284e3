// Owns: what the step path does with a row between products: embedding, rotation angles, norms, gates. All of a row's
// sums have one order, whatever the number of rows.
#pragma once

#include "cuda/kernels/step_products.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
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

// out[r] = bf16(rmsnorm(residual[r]) * weight) for `count` rows from `first`; with `split`, what rounding took away
// follows as another `hidden` numbers. kAtOnce: rows whose loads are
// under way together. `sums`: kAtOnce * kStepWarps floats of shared memory.
template <int kAtOnce>
__device__ __forceinline__ void norm_step_rows(const float* residual, const float* weight, float eps, int hidden,
                                               int first, int count, bool split, bf16* out, int64_t stride,
                                               float* sums) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float4 held[2] = {};  // of one row's weights: they come while its sum is made
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int c = (threadIdx.x + i * kStepThreads) * 4;
    if (kAtOnce == 1 && c < hidden) held[i] = load_float4(weight + c);
  }
  for (int begin = first; begin < first + count; begin += kAtOnce) {
    const int rows = min(kAtOnce, first + count - begin);
    const float* from = residual + static_cast<int64_t>(begin) * hidden;
    float sum[kAtOnce] = {};
#pragma unroll 2
    for (int c = threadIdx.x * 4; c < hidden; c += kStepThreads * 4) {
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        if (r >= rows) continue;
        const float4 v = load_float4(from + static_cast<int64_t>(r) * hidden + c);
        sum[r] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      }
    }
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      if (r >= rows) continue;
      sum[r] = warp_sum(sum[r]);
      if (lane == 0) sums[r * kStepWarps + warp] = sum[r];
    }
    step_sync();
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      if (r >= rows) continue;
      float all = 0.0f;
#pragma unroll
      for (int w = 0; w < kStepWarps; ++w) all += sums[r * kStepWarps + w];
      sum[r] = 1.0f / sqrtf(all / static_cast<float>(hidden) + eps);
    }
#pragma unroll 2
    for (int c = threadIdx.x * 4, i = 0; c < hidden; c += kStepThreads * 4, ++i) {
      const float4 w = kAtOnce > 1 || i > 1 ? load_float4(weight + c) : i == 0 ? held[0] : held[1];
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        if (r >= rows) continue;
        const float4 v = load_float4(from + static_cast<int64_t>(r) * hidden + c);
        const float x = v.x * sum[r] * w.x, y = v.y * sum[r] * w.y, z = v.z * sum[r] * w.z, u = v.w * sum[r] * w.w;
        const uint2 high = {pack_bf16(x, y), pack_bf16(z, u)};
        bf16* to = out + (begin + r - first) * stride + c;
        *reinterpret_cast<uint2*>(to) = high;
        if (!split) continue;
        const auto rest = [](float value, uint32_t bits) { return value - __uint_as_float(bits); };
        *reinterpret_cast<uint2*>(to + hidden) = {pack_bf16(rest(x, high.x << 16), rest(y, high.x & 0xffff0000u)),
                                                  pack_bf16(rest(z, high.y << 16), rest(u, high.y & 0xffff0000u))};
      }
    }
    step_sync();
  }
}

// out[r] = grouped rmsnorm(mixed[r]) * weight * sigmoid(gate[r]), as bf16. `sums`: kStepRows * 8 floats. kOneRow:
// `count` is at most 1.
template <bool kOneRow>
__device__ __forceinline__ void gate_step_rows(const Step& s, int first, int count, bf16* out, int64_t stride,
                                               float* sums) {
  const StepShape& shape = s.shape();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = shape.width;
  const int groups = shape.norm_groups, group_width = width / groups;
  float4 gates[2] = {}, weights[2] = {};  // of one row: they come while its sums are made
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int c = (threadIdx.x + i * kStepThreads) * 4;
    if (!kOneRow || c >= count * width) continue;
    gates[i] = load_float4(shape.gate + static_cast<int64_t>(first) * width + c);
    weights[i] = load_float4(s.layer().output_norm + c);
  }
  for (int i = warp; i < count * groups; i += kStepWarps) {
    const float* from = shape.mixed + static_cast<int64_t>(first + (kOneRow ? 0 : i / groups)) * width +
                        (kOneRow ? i : i % groups) * group_width;
    float sum = 0.0f;
#pragma unroll 4
    for (int c = lane * 4; c < group_width; c += 128) {
      const float4 v = load_float4(from + c);
      sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    sum = warp_sum(sum);
    if (lane == 0) sums[i] = 1.0f / sqrtf(sum / static_cast<float>(group_width) + shape.eps);
  }
  step_sync();
  const float* weight = s.layer().output_norm;
#pragma unroll 2
  for (int i = threadIdx.x * 4, k = 0; i < count * width; i += kStepThreads * 4, ++k) {
    const int row = kOneRow ? 0 : i / width, c = i - row * width;
    const int64_t at = static_cast<int64_t>(first + row) * width + c;
    const float4 v = load_float4(shape.mixed + at);
    const bool is_held = kOneRow && k < 2;
    const float4 g = !is_held ? load_float4(shape.gate + at) : k == 0 ? gates[0] : gates[1];
    const float4 w = !is_held ? load_float4(weight + c) : k == 0 ? weights[0] : weights[1];
    const float scale = sums[row * groups + c / group_width];
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

// A copy of the inner activations, so that products find them in shared memory.
template <bool kOneRow>
__device__ __forceinline__ void copy_inner_rows(const Step& s, int columns, bf16* out, int64_t stride) {
  const int rows = kOneRow ? 1 : s.call().rows;
#pragma unroll 4
  for (int i = threadIdx.x * 8; i < rows * columns; i += kStepThreads * 8) {
    const int row = kOneRow ? 0 : i / columns, c = i - row * columns;
    *reinterpret_cast<uint4*>(out + row * stride + c) =
        load_16_bytes(s.shape().inner + static_cast<int64_t>(row) * s.shape().inner_columns + c);
  }
  step_sync();
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
