// Owns: what a lane does with weights in fragment order (matrix.h): loads its 16 bytes of a block, makes bf16 of the
// codes, exactly, and multiplies; and the few asynchronous copies and barriers around that.
//
// Weights are the A operand of mma.m16n8k16 (16 outputs), activations the B operand (8 rows). A lane's result c[0..3]:
// outputs l / 4 (c[0], c[1]) and l / 4 + 8 (c[2], c[3]) of rows 2 * (l % 4) and 2 * (l % 4) + 1.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/matrix.h"

namespace ringside::cuda {

// Columns of a block, and multiplications (of 16 columns) that a block is.
template <MatrixFormat kFormat>
inline constexpr int kBlockColumns = kFormat == MatrixFormat::kBF16 ? 16
                                     : kFormat == MatrixFormat::kQ4 ? 64
                                                                    : 32;
template <MatrixFormat kFormat>
inline constexpr int kBlockSteps = kBlockColumns<kFormat> / 16;
// Neighbouring columns of a block that one lane holds, of a weight row and of an activation row alike.
template <MatrixFormat kFormat>
inline constexpr int kLaneColumns = kBlockColumns<kFormat> / 4;

// A block of kQ4 has 64 columns, and its multiplications mix all of them. Groups of 32 therefore take two passes over a
// block, each with the other group's weights as zeros (keep_group); every other group is whole blocks.
template <MatrixFormat kFormat, int kGroupColumns>
inline constexpr int kBlockPasses = kFormat == MatrixFormat::kQ4&& kGroupColumns == 32 ? 2 : 1;

#if defined(__CUDACC__)

// Rows "in the order of k": where word `word` (two columns) of 64 columns lies when multiplications take the columns
// of a row from memory as they come, 16 at a time.
__host__ __device__ __forceinline__ int ordered_word(MatrixFormat format, int word) {
  const int words = format == MatrixFormat::kBF16 ? 8 : format == MatrixFormat::kQ4 ? 32 : 16, lane_words = words / 4;
  return word / words * words + word % lane_words * 4 + word % words / lane_words;
}

// A lane's 16 bytes of a block: x, y of output l / 4 and z, w of output l / 4 + 8. Weights are only read, so they take
// the read-only path.
__device__ __forceinline__ uint4 load_codes(const uint8_t* block, int lane) {
  return __ldg(reinterpret_cast<const uint4*>(block) + lane);
}

__device__ __forceinline__ __nv_bfloat162 bf16x2_of(uint32_t bits) {
  __nv_bfloat162 pair;
  __builtin_memcpy(&pair, &bits, 4);
  return pair;
}
__device__ __forceinline__ uint32_t bits_of(__nv_bfloat162 pair) {
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, 4);
  return bits;
}
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  return bits_of(__floats2bfloat162_rn(low, high));
}
__device__ __forceinline__ uint32_t bf16x2_subtract(uint32_t a, uint32_t b) {
  return bits_of(__hsub2(bf16x2_of(a), bf16x2_of(b)));
}
__device__ __forceinline__ uint32_t bf16x2_multiply(uint32_t a, uint32_t b) {
  return bits_of(__hmul2(bf16x2_of(a), bf16x2_of(b)));
}

// Bytes 2 * kPair and 2 * kPair + 1 of `word`, as signed numbers. Between 128 and 256 neighbours in bf16 differ by 1,
// so 0x43 over seven bits is 128 + them; with the eighth bit alone it is 128 or 256, and the difference is the number.
template <int kPair>
__device__ __forceinline__ uint32_t q8_pair(uint32_t word) {
  const uint32_t wide = __byte_perm(word, 0x43434343u, kPair == 0 ? 0x4140 : 0x4342);
  return bf16x2_subtract(wide & 0xff7fff7fu, wide & 0xff80ff80u);
}

// Half bytes kPair and kPair + 4 of `word`, minus 8.
template <int kPair>
__device__ __forceinline__ uint32_t q4_pair(uint32_t word) {
  return bf16x2_subtract(((word >> (4 * kPair)) & 0x000f000fu) | 0x43004300u, 0x43084308u);
}

// Bytes 2 * kPair and 2 * kPair + 1 of `word`, as e4m3fn. Exponent and mantissa move into bf16's places; the biases
// differ by 120, which also makes the subnormal ones right. (The two codes of NaN become 480: loading refuses them.)
template <int kPair>
__device__ __forceinline__ uint32_t fp8_pair(uint32_t word) {
  const uint32_t high = __byte_perm(word, 0u, kPair == 0 ? 0x1404 : 0x3424);
  return bf16x2_multiply(((high >> 4) & 0x07f007f0u) | (high & 0x80008000u), 0x7b807b80u);
}

// The A operand of the kStep-th multiplication of a block.
template <MatrixFormat kFormat, int kStep>
__device__ __forceinline__ void to_fragment(const uint4& codes, uint32_t (&a)[4]) {
  static_assert(kStep >= 0 && kStep < kBlockSteps<kFormat>);
  if constexpr (kFormat == MatrixFormat::kBF16) {
    a[0] = codes.x, a[1] = codes.z, a[2] = codes.y, a[3] = codes.w;
  } else if constexpr (kFormat == MatrixFormat::kQ4) {
    const uint32_t low = kStep < 2 ? codes.x : codes.y, high = kStep < 2 ? codes.z : codes.w;
    constexpr int kPair = kStep % 2 * 2;
    a[0] = q4_pair<kPair>(low), a[1] = q4_pair<kPair>(high);
    a[2] = q4_pair<kPair + 1>(low), a[3] = q4_pair<kPair + 1>(high);
  } else {
    const uint32_t low = kStep == 0 ? codes.x : codes.y, high = kStep == 0 ? codes.z : codes.w;
    if constexpr (kFormat == MatrixFormat::kQ8) {
      a[0] = q8_pair<0>(low), a[1] = q8_pair<0>(high), a[2] = q8_pair<1>(low), a[3] = q8_pair<1>(high);
    } else {
      a[0] = fp8_pair<0>(low), a[1] = fp8_pair<0>(high), a[2] = fp8_pair<1>(low), a[3] = fp8_pair<1>(high);
    }
  }
}

// All multiplications of a block.
template <MatrixFormat kFormat>
__device__ __forceinline__ void to_fragments(const uint4& codes, uint32_t (&a)[kBlockSteps<kFormat>][4]) {
  to_fragment<kFormat, 0>(codes, a[0]);
  if constexpr (kBlockSteps < kFormat >> 1) to_fragment<kFormat, 1>(codes, a[1]);
  if constexpr (kBlockSteps < kFormat >> 2) {
    to_fragment<kFormat, 2>(codes, a[2]);
    to_fragment<kFormat, 3>(codes, a[3]);
  }
}

// Of a kQ4 block the group of 32 columns number `pass`, 0 or 1: lanes that hold the other one multiply zeros.
__device__ __forceinline__ void keep_group(uint32_t (&a)[4], int lane, int pass) {
  const uint32_t mask = (lane >> 1 & 1) == pass ? 0xffffffffu : 0u;
  a[0] &= mask, a[1] &= mask, a[2] &= mask, a[3] &= mask;
}

// c += A * B. b0 and b1 are columns 4m, 4m+1 and 4m+2, 4m+3 of the lane's kLaneColumns of activation row l / 4.
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c = A * B: the first multiplication of a group; no register has to be cleared before it.
__device__ __forceinline__ void mma_m16n8k16_first(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory, past L1. Nothing is read and zeros are written where `valid` is false.
__device__ __forceinline__ void cp_async_16(uint32_t shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void cp_async_16(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global));
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;"); }
// Until at most kPending of this thread's committed groups are still under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ uint4 load_shared_16(uint32_t shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(shared));
  return v;
}

#endif  // __CUDACC__

}  // namespace ringside::cuda
