// Owns: what both kinds of attention do in device code: the tensor cores' instructions, tiles of 64 positions in shared
// memory, and the norm and rotation of a head.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/kernels/codes.cuh"
#include "cuda/model.h"

namespace ringside::cuda {

// A tile's row is a head's 128 channels: 256 bytes, 16 vectors of 16 bytes.
inline constexpr int kRowBytes = kHeadDim * 2;
inline constexpr int kRowVectors = kRowBytes / 16;
// Keys, or values, of one head in a page.
inline constexpr int64_t kPagePart = page_part_values();

// Eight rows of one vector column would lie in the same banks; the row's low bits spread them.
__device__ __forceinline__ uint32_t tile_offset(int row, int vector) {
  return static_cast<uint32_t>(row * kRowBytes + ((vector ^ (row & 7)) << 4));
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// d += a b: a [16, 16], b [16, 8]
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Copies 16 bytes without a register; `bytes` of 0 writes zeros and reads nothing.
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 2^x; below the normal numbers it is 0, which is what a weight so small is worth.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// How a row of keys or values becomes codes of 8 bits: code = x * inverse, to the nearest; x = code * scale.
struct KvScale {
  float scale, inverse;
};
// Magnitudes order as their bits do, infinity and NaN last.
__device__ __forceinline__ uint32_t magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffu; }
// Of a position's key and value, by their largest magnitudes. A position that is no number becomes, as on the CPU, a
// key of NaN and a value of zero, which reaches exactly the rows that may see it.
__device__ __forceinline__ void kv_scales(uint32_t largest_key, uint32_t largest_value, KvScale& key, KvScale& value) {
  if (max(largest_key, largest_value) >= 0x7f800000u) {
    key = {__uint_as_float(0x7fc00000u), 0.0f}, value = {0.0f, 0.0f};
    return;
  }
  const auto of = [](float largest) { return KvScale{largest / 127.0f, largest > 1e-36f ? 127.0f / largest : 0.0f}; };
  key = of(__uint_as_float(largest_key)), value = of(__uint_as_float(largest_value));
}
__device__ __forceinline__ uint32_t kv_code(float x, const KvScale& scale) {
  return static_cast<uint32_t>(__float2int_rn(x * scale.inverse)) & 0xffu;  // of NaN it is 0
}
__device__ __forceinline__ uint32_t kv_codes(const float4& x, const KvScale& scale) {
  return kv_code(x.x, scale) | kv_code(x.y, scale) << 8 | kv_code(x.z, scale) << 16 | kv_code(x.w, scale) << 24;
}
// Scales of the 256 positions, behind the codes of a page's part.
__device__ __forceinline__ float* kv_page_scales(uint8_t* part) {
  return reinterpret_cast<float*>(part + page_part_values());
}
__device__ __forceinline__ const float* kv_page_scales(const uint8_t* part) {
  return reinterpret_cast<const float*>(part + page_part_values());
}

__device__ __forceinline__ float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// A head's channels lie in half a warp: lane t of its 16 holds the channels 8t .. 8t+7.
inline constexpr int kHeadLanes = 16;

__device__ __forceinline__ void unpack_channels(const uint4& raw, float (&x)[8]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = low_half(words[i]);
    x[2 * i + 1] = high_half(words[i]);
  }
}
__device__ __forceinline__ uint4 pack_channels(const float (&x)[8]) {
  return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}
__device__ __forceinline__ void load_floats(const float* from, float (&x)[8]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ __forceinline__ void store_floats(float* to, const float (&x)[8]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

__device__ __forceinline__ void norm_head(float (&x)[8], const float* weight, float eps, int lane) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(x[i], x[i], sum);
#pragma unroll
  for (int step = kHeadLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  const float scale = rsqrtf(sum / static_cast<float>(kHeadDim) + eps);
  float w[8];
  load_floats(weight + 8 * lane, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = x[i] * scale * w[i];
}

// Cosine and sine of the angles of `rows` positions from `first`, [rows, rotary_dim / 2], by the whole block. The angle
// is the fp32 product that the references take, so its sine needs the full range reduction.
__device__ __forceinline__ void fill_angles(float2* angles, const float* inv_freq, int half, int64_t first, int rows) {
  for (int i = threadIdx.x; i < rows * half; i += blockDim.x) {
    const float angle = static_cast<float>(first + i / half) * inv_freq[i % half];
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    angles[i] = make_float2(cosine, sine);
  }
}

// Channel c turns with channel c + half: the two lie in lanes half / 8 apart. Called by whole warps.
__device__ __forceinline__ void rotate_head(float (&x)[8], const float2* row_angles, int half, int lane) {
  const int reach = half / 8;
  const bool first = lane < reach, second = !first && lane < 2 * reach;
  const int partner = first ? lane + reach : second ? lane - reach : lane;
  const float2* angles = row_angles + 8 * (first ? lane : lane - reach);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float other = __shfl_sync(0xffffffffu, x[i], partner, kHeadLanes);
    if (first || second) {
      const float2 turn = angles[i];
      x[i] = fmaf(first ? -other : other, turn.y, x[i] * turn.x);
    }
  }
}

// Bytes of scratch that each kind of attention needs for a slab.
int64_t linear_scratch_bytes(const DeviceModel& model, int64_t rows);
int64_t softmax_scratch_bytes(const DeviceModel& model, int64_t rows);

}  // namespace ringside::cuda
