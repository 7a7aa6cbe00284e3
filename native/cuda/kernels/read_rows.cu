// Owns: what the read path does with a row alone: embedding, norms, gates.
// All of it waits for memory: accesses are 16 bytes a lane, each number is read once, and a block or warp has all it
// reads in flight before the first use. Sums are taken in one order of a row's channels, whatever the other rows.
#include <cuda_fp8.h>

#include <algorithm>

#include "cuda/cuda_call.h"
#include "cuda/kernels/read_rows.h"

namespace ringside::cuda {
namespace {

constexpr int kVector = 8;  // channels that a lane takes at once

__device__ __forceinline__ void load_channels(const float* from, float (&x)[kVector]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

__device__ __forceinline__ void load_channels(const bf16* from, float (&x)[kVector]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ void store_channels(bf16* to, const float (&x)[kVector]) {
  __nv_bfloat162 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
}

__device__ __forceinline__ float sum_of_squares(const float (&x)[kVector], float sum) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum = fmaf(x[i], x[i], sum);
  return sum;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// A thread of the embedding: what one lane of the tile's block holds of the token's row, 8 bytes.
template <MatrixFormat kFormat>
__device__ __forceinline__ void decode(uint2 raw, float* values) {
  const uint32_t words[2] = {raw.x, raw.y};
#pragma unroll
  for (int w = 0; w < 2; ++w) {
    if constexpr (kFormat == MatrixFormat::kBF16) {
      values[2 * w] = __uint_as_float(words[w] << 16);
      values[2 * w + 1] = __uint_as_float(words[w] & 0xffff0000u);
    } else if constexpr (kFormat == MatrixFormat::kQ4) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        values[8 * w + i] = static_cast<float>(static_cast<int>(words[w] >> (i % 2 * 16 + i / 2 * 4) & 15u) - 8);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint8_t byte = static_cast<uint8_t>(words[w] >> (8 * i));
        if constexpr (kFormat == MatrixFormat::kQ8) {
          values[4 * w + i] = static_cast<float>(static_cast<int8_t>(byte));
        } else {
          values[4 * w + i] = __half2float(__half(__nv_cvt_fp8_to_halfraw(byte, __NV_E4M3)));
        }
      }
    }
  }
}

constexpr int kThreads = 256;

template <MatrixFormat kFormat>
__global__ void __launch_bounds__(kThreads) embed(const DeviceMatrix table, const int32_t* tokens, float* residual) {
  constexpr int kColumns = kFormat == MatrixFormat::kBF16 ? 4 : kFormat == MatrixFormat::kQ4 ? 16 : 8;
  const int64_t token = tokens[blockIdx.x];
  const int64_t tile = token / kTileRows, row = token % kTileRows;
  const int block_columns = 4 * kColumns, units = table.columns / kColumns;
  float* out = residual + blockIdx.x * static_cast<int64_t>(table.columns);
  for (int unit = threadIdx.x; unit < units; unit += kThreads) {
    const int64_t block = tile * (table.columns / block_columns) + unit / 4;
    // Row r of the tile is in the lanes 4 (r % 8) .. + 3, in their first 8 bytes or their last.
    const uint8_t* from = table.blocks + block * kBlockBytes + (row % 8 * 4 + unit % 4) * 16 + row / 8 * 8;
    float values[kColumns];
    decode<kFormat>(*reinterpret_cast<const uint2*>(from), values);
    if constexpr (kFormat != MatrixFormat::kBF16) {
      const int64_t at = (tile * table.groups() + unit * kColumns / table.group_columns) * kTileRows + row;
      const float scale = table.scales[at], offset = table.offsets == nullptr ? 0.0f : table.offsets[at];
#pragma unroll
      for (int i = 0; i < kColumns; ++i) values[i] = fmaf(values[i], scale, offset);
    }
#pragma unroll
    for (int i = 0; i < kColumns / 4; ++i)
      reinterpret_cast<float4*>(out + unit * kColumns)[i] =
          make_float4(values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]);
  }
}

// A row a block, kHeld vectors of it a thread, in registers from the sum to the result.
constexpr int kNormThreads = 1024;  // at most

template <int kHeld, bool kSplit>
__global__ void __launch_bounds__(kNormThreads)
    norm(const float* residual, const float* weight, float eps, int hidden, bf16* out, int64_t out_stride) {
  __shared__ float warp_sums[32];
  const float* row = residual + blockIdx.x * static_cast<int64_t>(hidden);
  float x[kHeld][kVector], w[kHeld][kVector];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * blockDim.x + threadIdx.x) * kVector;
    if (at >= hidden) continue;
    load_channels(row + at, x[i]);
    load_channels(weight + at, w[i]);
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if ((i * blockDim.x + threadIdx.x) * kVector < hidden) sum = sum_of_squares(x[i], sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  const int warps = blockDim.x / 32, lane = threadIdx.x % 32;
  sum = warp_sum(lane < warps ? warp_sums[lane] : 0.0f);
  const float scale = rsqrtf(sum / static_cast<float>(hidden) + eps);
  bf16* to = out + blockIdx.x * out_stride;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * blockDim.x + threadIdx.x) * kVector;
    if (at >= hidden) continue;
#pragma unroll
    for (int c = 0; c < kVector; ++c) x[i][c] = x[i][c] * scale * w[i][c];
    store_channels(to + at, x[i]);
    if constexpr (kSplit) {
      float low[kVector];
#pragma unroll
      for (int c = 0; c < kVector; ++c) low[c] = x[i][c] - __bfloat162float(__float2bfloat16_rn(x[i][c]));
      store_channels(to + hidden + at, low);
      store_channels(to + 2 * hidden + at, x[i]);
    }
  }
}

// Rows and threads of norm for a width: a vector a thread while a block is large enough.
template <bool kSplit>
Status launch_norm(const float* residual, const float* weight, float eps, int64_t hidden, int64_t rows, bf16* out,
                   int64_t out_stride, cudaStream_t stream) {
  const int64_t vectors = hidden / kVector;
  const unsigned threads = static_cast<unsigned>(std::min((vectors + 31) / 32 * 32, int64_t{kNormThreads}));
  const int64_t held = (vectors + threads - 1) / threads;
  const unsigned blocks = static_cast<unsigned>(rows);
  const int width = static_cast<int>(hidden);
  if (held == 1) {
    norm<1, kSplit><<<blocks, threads, 0, stream>>>(residual, weight, eps, width, out, out_stride);
  } else if (held == 2) {
    norm<2, kSplit><<<blocks, threads, 0, stream>>>(residual, weight, eps, width, out, out_stride);
  } else if (held <= 4) {
    norm<4, kSplit><<<blocks, threads, 0, stream>>>(residual, weight, eps, width, out, out_stride);
  } else {
    return Error{ErrorKind::kArgumentInvalid, "hidden", "at most 32768", std::to_string(hidden)};
  }
  RS_LAUNCHED();
  return Unit{};
}

// A group of a row a warp; the lane's vectors of it stay in registers.
template <int kHeld>
__global__ void __launch_bounds__(kThreads)
    gate_groups(const float* mixed, const bf16* gate, int64_t gate_stride, const float* weight, float eps,
                int group_width, int groups, int64_t rows, bf16* out, int64_t out_stride) {
  const int64_t item = blockIdx.x * static_cast<int64_t>(kThreads / 32) + threadIdx.x / 32;
  if (item >= rows * groups) return;
  const int64_t row = item / groups, first = item % groups * group_width;
  const int lane = threadIdx.x % 32;
  const float* from = mixed + row * groups * group_width + first;
  const bf16* gates = gate + row * gate_stride + first;
  float x[kHeld][kVector];
  uint4 raw[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * 32 + lane) * kVector;
    if (at >= group_width) continue;
    load_channels(from + at, x[i]);
    raw[i] = *reinterpret_cast<const uint4*>(gates + at);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if ((i * 32 + lane) * kVector < group_width) sum = sum_of_squares(x[i], sum);
  const float scale = rsqrtf(warp_sum(sum) / static_cast<float>(group_width) + eps);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (i * 32 + lane) * kVector;
    if (at >= group_width) continue;
    float w[kVector], g[kVector];
    load_channels(weight + first + at, w);
    load_channels(reinterpret_cast<const bf16*>(&raw[i]), g);
#pragma unroll
    for (int c = 0; c < kVector; ++c) x[i][c] = x[i][c] * scale * w[c] / (1.0f + expf(-g[c]));
    store_channels(out + row * out_stride + first + at, x[i]);
  }
}

}  // namespace

Status embed_rows(const DeviceModel& model, const int32_t* tokens, int64_t rows, float* residual, cudaStream_t stream) {
  const DeviceMatrix& table = model.embedding;
  const unsigned blocks = static_cast<unsigned>(rows);
  switch (table.format) {
    case MatrixFormat::kBF16:
      embed<MatrixFormat::kBF16><<<blocks, kThreads, 0, stream>>>(table, tokens, residual);
      break;
    case MatrixFormat::kQ8:
      embed<MatrixFormat::kQ8><<<blocks, kThreads, 0, stream>>>(table, tokens, residual);
      break;
    case MatrixFormat::kQ4:
      embed<MatrixFormat::kQ4><<<blocks, kThreads, 0, stream>>>(table, tokens, residual);
      break;
    case MatrixFormat::kFP8:
      embed<MatrixFormat::kFP8><<<blocks, kThreads, 0, stream>>>(table, tokens, residual);
      break;
  }
  RS_LAUNCHED();
  return Unit{};
}

Status norm_rows(const float* residual, const float* weight, float eps, int64_t hidden, int64_t rows, bf16* out,
                 int64_t out_stride, cudaStream_t stream) {
  return launch_norm<false>(residual, weight, eps, hidden, rows, out, out_stride, stream);
}

Status norm_rows_split(const float* residual, const float* weight, float eps, int64_t hidden, int64_t rows, bf16* out,
                       int64_t out_stride, cudaStream_t stream) {
  return launch_norm<true>(residual, weight, eps, hidden, rows, out, out_stride, stream);
}

Status gate_rows(const float* mixed, const bf16* gate, int64_t gate_stride, const float* weight, float eps,
                 int64_t norm_groups, int64_t width, int64_t rows, bf16* out, int64_t out_stride, cudaStream_t stream) {
  const int group_width = static_cast<int>(width / norm_groups), groups = static_cast<int>(norm_groups);
  if (width % norm_groups != 0 || group_width % kVector != 0)
    return Error{ErrorKind::kArgumentInvalid, "group_norm_size", "groups of a multiple of 8 channels",
                 std::to_string(width) + " channels in " + std::to_string(norm_groups) + " groups"};
  const unsigned blocks = static_cast<unsigned>((rows * norm_groups + kThreads / 32 - 1) / (kThreads / 32));
  const auto launch = [&](auto kernel) {
    kernel<<<blocks, kThreads, 0, stream>>>(mixed, gate, gate_stride, weight, eps, group_width, groups, rows, out,
                                            out_stride);
  };
  const int held = (group_width + 32 * kVector - 1) / (32 * kVector);
  if (held <= 1) {
    launch(gate_groups<1>);
  } else if (held <= 2) {
    launch(gate_groups<2>);
  } else if (held <= 4) {
    launch(gate_groups<4>);
  } else if (held <= 8) {
    launch(gate_groups<8>);
  } else if (held <= 16) {
    launch(gate_groups<16>);
  } else {
    return Error{ErrorKind::kArgumentInvalid, "group_norm_size", "groups of at most 4096 channels",
                 std::to_string(group_width)};
  }
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
