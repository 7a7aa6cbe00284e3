// Owns: softmax attention of the read path (specification 4): what goes to the pages, and the choice of the kernel
// that reads them.
#include <algorithm>

#include "cuda/cuda_call.h"
#include "cuda/kernels/attention_tile.cuh"
#include "cuda/kernels/flash_attention.cuh"
#include "cuda/kernels/read_attention.h"

namespace ringside::cuda {
namespace {

struct SoftmaxCall {
  const bf16* qkv;
  int64_t qkv_stride;
  int64_t position, rows;
  int heads, kv_heads, half;
  float eps;
  const float *query_norm, *key_norm, *inv_freq;
  bf16* const* pages;
  int64_t layer_at;  // where the layer begins in a page
  bf16* queries;     // [rows, heads, 128]
};

constexpr int kPrepareThreads = 256;
constexpr int kRowsOfBlock = 4;

// Norm and rotation; queries to scratch, scaled so that scores are logarithms to base 2, keys and values to the pages.
__global__ void __launch_bounds__(kPrepareThreads) prepare_rows(const SoftmaxCall call) {
  extern __shared__ __align__(16) uint8_t shared[];
  float2* angles = reinterpret_cast<float2*>(shared);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock;
  fill_angles(angles, call.inv_freq, call.half, call.position + first, kRowsOfBlock);
  __syncthreads();
  const int lane = threadIdx.x % kHeadLanes;
  const int parts = call.heads + 2 * call.kv_heads, count = parts * kRowsOfBlock;
  // Whole warps stay in the loop: the norm and the rotation exchange channels.
  for (int base = 0; base < count; base += kPrepareThreads / kHeadLanes) {
    const int item = base + threadIdx.x / kHeadLanes;
    const int row = item / parts, part = item % parts;
    const bool mine = item < count && first + row < call.rows;
    uint4 raw = make_uint4(0, 0, 0, 0);
    if (mine)
      raw = *reinterpret_cast<const uint4*>(call.qkv + (first + row) * call.qkv_stride + part * kHeadDim + 8 * lane);
    float x[8];
    unpack_channels(raw, x);
    norm_head(x, part < call.heads ? call.query_norm : call.key_norm, call.eps, lane);
    rotate_head(x, angles + min(row, kRowsOfBlock - 1) * call.half, call.half, lane);
    if (!mine) continue;
    if (part < call.heads) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] *= 0.12751743f;  // 128^-0.5 * log2(e)
      bf16* to = call.queries + ((first + row) * call.heads + part) * kHeadDim;
      *reinterpret_cast<uint4*>(to + 8 * lane) = pack_channels(x);
      continue;
    }
    const int kv_head = (part - call.heads) % call.kv_heads, is_value = part >= call.heads + call.kv_heads;
    const int64_t position = call.position + first + row;
    bf16* to = call.pages[position / kPageTokens] + call.layer_at + (kv_head * 2 + is_value) * kPagePart +
               position % kPageTokens * kHeadDim;
    *reinterpret_cast<uint4*>(to + 8 * lane) = is_value ? raw : pack_channels(x);
  }
}

int64_t query_bytes(const DeviceModel& model, int64_t rows) {
  return rows * model.width * static_cast<int64_t>(sizeof(bf16));
}

}  // namespace

int64_t softmax_scratch_bytes(const DeviceModel& model, int64_t rows) { return query_bytes(model, rows); }

int64_t read_attention_scratch_bytes(const DeviceModel& model, int64_t rows) {
  return std::max(linear_scratch_bytes(model, rows), softmax_scratch_bytes(model, rows));
}

Status read_softmax_attention(const ReadAttention& call, bf16* mixed, cudaStream_t stream) {
  const DeviceModel& model = *call.model;
  const DeviceLayer& layer = *call.layer;
  const int64_t layer_at = static_cast<int64_t>(layer.kind_index) * model.config.kv_heads * 2 * kPagePart;
  const SoftmaxCall softmax{
      .qkv = call.qkv,
      .qkv_stride = call.qkv_stride,
      .position = call.session.position,
      .rows = call.rows,
      .heads = model.config.heads,
      .kv_heads = model.config.kv_heads,
      .half = model.config.rotary_dim / 2,
      .eps = model.config.rms_eps,
      .query_norm = layer.query_norm,
      .key_norm = layer.key_norm,
      .inv_freq = model.inv_freq,
      .pages = call.session.pages,
      .layer_at = layer_at,
      .queries = static_cast<bf16*>(call.scratch),
  };
  const uint32_t blocks = static_cast<uint32_t>((call.rows + kRowsOfBlock - 1) / kRowsOfBlock);
  prepare_rows<<<blocks, kPrepareThreads, kRowsOfBlock * softmax.half * sizeof(float2), stream>>>(softmax);
  RS_LAUNCHED();
  const FlashCall flash{
      .queries = softmax.queries,
      .mixed = mixed,
      .pages = call.session.pages,
      .layer_at = layer_at,
      .position = static_cast<int>(call.session.position),
      .rows = static_cast<int>(call.rows),
      .heads = model.config.heads,
      .kv_heads = model.config.kv_heads,
  };
  int device = 0, major = 0;
  RS_CUDA(cudaGetDevice(&device));
  RS_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9 ? run_flash_attention_hopper(flash, stream) : run_flash_attention(flash, stream);
}

}  // namespace ringside::cuda
