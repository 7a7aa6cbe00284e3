// Owns: softmax attention of the read path (specification 4): what goes to the pages, pages of codes as bf16, and the
// choice of the kernel that reads them.
#include <algorithm>

#include "cuda/cuda_call.h"
#include "cuda/device_memory.h"
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
  uint8_t* const* pages;
  int64_t layer_at;    // bytes from a page's begin to the layer
  int64_t part_bytes;  // of the keys, or of the values, of a head in a page
  bf16* queries;       // [rows, heads, 128]
};

constexpr int kPrepareThreads = 256;
constexpr int kRowsOfBlock = 4;

__device__ __forceinline__ uint32_t largest_magnitude(const float (&x)[8]) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) largest = max(largest, magnitude_bits(x[i]));
#pragma unroll
  for (int step = kHeadLanes / 2; step > 0; step /= 2) {
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  }
  return largest;
}

__device__ __forceinline__ void store_codes(const float (&x)[8], const KvScale& scale, int slot, int lane,
                                            uint8_t* part) {
  reinterpret_cast<uint2*>(part)[slot * kHeadLanes + lane] = {kv_codes(make_float4(x[0], x[1], x[2], x[3]), scale),
                                                              kv_codes(make_float4(x[4], x[5], x[6], x[7]), scale)};
  if (lane == 0) kv_page_scales(part)[slot] = scale.scale;
}

// Norm and rotation; queries to scratch, scaled so that scores are logarithms to base 2, keys and values to the pages.
template <bool kCodes>
__global__ void __launch_bounds__(kPrepareThreads) prepare_rows(const SoftmaxCall call) {
  extern __shared__ __align__(16) uint8_t shared[];
  float2* angles = reinterpret_cast<float2*>(shared);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock;
  fill_angles(angles, call.inv_freq, call.half, call.position + first, kRowsOfBlock);
  __syncthreads();
  const int lane = threadIdx.x % kHeadLanes;
  const int parts = call.heads + call.kv_heads, count = parts * kRowsOfBlock;
  // Whole warps stay in the loop: the norm and the rotation exchange channels.
  for (int base = 0; base < count; base += kPrepareThreads / kHeadLanes) {
    const int item = base + threadIdx.x / kHeadLanes;
    const int row = item / parts, part = item % parts;
    const bool mine = item < count && first + row < call.rows;
    // A key comes with its value: whether a position is a number is decided by both.
    uint4 raw = make_uint4(0, 0, 0, 0), raw_value = raw;
    if (mine) {
      const bf16* from = call.qkv + (first + row) * call.qkv_stride + part * kHeadDim + 8 * lane;
      raw = *reinterpret_cast<const uint4*>(from);
      if (part >= call.heads) raw_value = *reinterpret_cast<const uint4*>(from + call.kv_heads * kHeadDim);
    }
    float x[8];
    unpack_channels(raw, x);
    norm_head(x, part < call.heads ? call.query_norm : call.key_norm, call.eps, lane);
    rotate_head(x, angles + min(row, kRowsOfBlock - 1) * call.half, call.half, lane);
    float value[8];
    KvScale key_scale, value_scale;
    if constexpr (kCodes) {
      unpack_channels(raw_value, value);
      kv_scales(largest_magnitude(x), largest_magnitude(value), key_scale, value_scale);
    }
    if (!mine) continue;
    if (part < call.heads) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] *= 0.12751743f;  // 128^-0.5 * log2(e)
      bf16* to = call.queries + ((first + row) * call.heads + part) * kHeadDim;
      *reinterpret_cast<uint4*>(to + 8 * lane) = pack_channels(x);
      continue;
    }
    const int64_t position = call.position + first + row;
    const int slot = static_cast<int>(position % kPageTokens);
    uint8_t* keys = call.pages[position / kPageTokens] + call.layer_at + (part - call.heads) * 2 * call.part_bytes;
    if constexpr (kCodes) {
      store_codes(x, key_scale, slot, lane, keys);
      store_codes(value, value_scale, slot, lane, keys + call.part_bytes);
    } else {
      reinterpret_cast<uint4*>(keys)[slot * kHeadLanes + lane] = pack_channels(x);
      reinterpret_cast<uint4*>(keys + call.part_bytes)[slot * kHeadLanes + lane] = raw_value;
    }
  }
}

// What the flash kernels read where pages hold codes: one layer's as bf16, page after page, [kv head, keys then values,
// 256, 128]. That is a fraction of what attention itself reads, block after block, from L2.
struct WidenedPages {
  bf16** table;
  bf16* pages;
};

constexpr int kWidenThreads = 256;

__global__ void __launch_bounds__(kWidenThreads) widen_pages(const SoftmaxCall call, const WidenedPages to) {
  const int64_t parts = 2 * call.kv_heads;
  if (blockIdx.y == 0 && threadIdx.x == 0) to.table[blockIdx.x] = to.pages + blockIdx.x * parts * kPagePart;
  const uint8_t* codes = call.pages[blockIdx.x] + call.layer_at + blockIdx.y * call.part_bytes;
  uint4* out = reinterpret_cast<uint4*>(to.pages + (blockIdx.x * parts + blockIdx.y) * kPagePart);
#pragma unroll 4
  for (int i = threadIdx.x; i < kPagePart / 8; i += kWidenThreads) {
    const uint2 packed = reinterpret_cast<const uint2*>(codes)[i];
    const float scale = kv_page_scales(codes)[i / kHeadLanes];
    float x[8];
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const uint32_t word = c < 4 ? packed.x : packed.y;
      x[c] = static_cast<float>(static_cast<int8_t>(word >> c % 4 * 8)) * scale;
    }
    out[i] = pack_channels(x);
  }
}

// Pointers into scratch, and its bytes when `base` is null.
int64_t place(const DeviceModel& model, int64_t rows, uint8_t* base, bf16*& queries, WidenedPages& widened) {
  Carver carver(base);
  carver.take(queries, rows * model.width);
  if (model.kv_format == RS_KV_Q8 && model.softmax_layers > 0) {
    const int64_t pages = (model.config.context_tokens + kPageTokens - 1) / kPageTokens;
    carver.take(widened.table, pages);
    carver.take(widened.pages, pages * model.config.kv_heads * 2 * kPagePart);
  }
  return carver.bytes();
}

}  // namespace

int64_t softmax_scratch_bytes(const DeviceModel& model, int64_t rows) {
  bf16* queries = nullptr;
  WidenedPages widened{};
  return place(model, rows, nullptr, queries, widened);
}

int64_t read_attention_scratch_bytes(const DeviceModel& model, int64_t rows) {
  return std::max(linear_scratch_bytes(model, rows), softmax_scratch_bytes(model, rows));
}

Status read_softmax_attention(const ReadAttention& call, bf16* mixed, cudaStream_t stream) {
  const DeviceModel& model = *call.model;
  const DeviceLayer& layer = *call.layer;
  const bool has_codes = model.kv_format == RS_KV_Q8;
  const int64_t part_bytes = page_part_bytes(model.kv_format),
                parts_before = int64_t{2} * layer.kind_index * model.config.kv_heads;
  bf16* queries = nullptr;
  WidenedPages widened{};
  place(model, call.rows, static_cast<uint8_t*>(call.scratch), queries, widened);
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
      .layer_at = parts_before * part_bytes,
      .part_bytes = part_bytes,
      .queries = queries,
  };
  const uint32_t blocks = static_cast<uint32_t>((call.rows + kRowsOfBlock - 1) / kRowsOfBlock);
  const size_t shared_bytes = kRowsOfBlock * softmax.half * sizeof(float2);
  if (has_codes) {
    prepare_rows<true><<<blocks, kPrepareThreads, shared_bytes, stream>>>(softmax);
    RS_LAUNCHED();
    const int64_t pages = (softmax.position + softmax.rows + kPageTokens - 1) / kPageTokens;
    const dim3 grid(static_cast<uint32_t>(pages), static_cast<uint32_t>(2 * softmax.kv_heads));
    widen_pages<<<grid, kWidenThreads, 0, stream>>>(softmax, widened);
  } else {
    prepare_rows<false><<<blocks, kPrepareThreads, shared_bytes, stream>>>(softmax);
  }
  RS_LAUNCHED();
  const FlashCall flash{
      .queries = softmax.queries,
      .mixed = mixed,
      .pages = has_codes ? widened.table : reinterpret_cast<bf16* const*>(call.session.pages),
      .layer_at = has_codes ? 0 : parts_before * kPagePart,
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
