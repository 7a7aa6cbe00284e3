// Owns: keys and values of some positions in a warp's registers, straight from a page, in the layout in which the
// tensor cores take them. Knows nothing of queries, rows and sessions.
#pragma once

#include "cuda/kernels/attention_tile.cuh"
#include "cuda/kernels/step_tables.cuh"

namespace ringside::cuda {

#if defined(__CUDACC__)

// Past L1: a step reads them once. Never by the read-only path: a step writes the new rows.
__device__ __forceinline__ uint4 load_page_16(const uint8_t* from) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
// The compiler would else make an address of its own for each of many offsets.
template <class T>
__device__ __forceinline__ const T* one_address(const T* from) {
  asm volatile("" : "+l"(from));
  return from;
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

// d += a b of whole numbers: a [16, 32], b [32, 8].
__device__ __forceinline__ void mma_codes(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// d += a b of fp16 numbers: a [16, 16], b [16, 8].
__device__ __forceinline__ void mma_half(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

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

// Keys and values of some positions in a warp's registers: 64 numbers of bf16 or 128 codes of each a lane.
//   keys    rows l / 4 + 8 i, of them the pieces of 16 bytes at 64 b + 16 (l % 4)
//   values  rows 16 (i / 4) + 2 (l % 4) + i % 2 + 8 (i / 2 % 2), of them the pieces at 128 h + 16 (l / 4)
template <bool kCodes>
struct KvTile {
  static constexpr int kPositions = kCodes ? 32 : 16;
  static constexpr int kParts = kPositions / 16;  // a multiplication takes the values of one
  static constexpr int kRowBytes = kCodes ? kHeadDim : 2 * kHeadDim;
  static constexpr int kKeyPieces = kRowBytes / 64, kValuePieces = kRowBytes / 128;
  uint4 keys[8], values[8];
  float key_scales[kCodes ? 4 : 1], value_scales[kCodes ? 4 : 1];  // of rows l / 4 + 8 i

  // Of values[i], beside the first row of the lane.
  __device__ __forceinline__ static constexpr int value_row(int i) {
    return i / kValuePieces / 4 * 16 + i / kValuePieces % 2 + i / kValuePieces / 2 % 2 * 8;
  }

  // From row `slot` of a page's part on.
  __device__ __forceinline__ void load_keys(const uint8_t* part, int slot) {
    const int lane = threadIdx.x & 31;
    const uint8_t* from = one_address(part + (slot + lane / 4) * kRowBytes + lane % 4 * 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      keys[i] = load_page_16(from + i / kKeyPieces * 8 * kRowBytes + i % kKeyPieces * 64);
    }
    if constexpr (kCodes) load_scales(part, slot, key_scales);
  }
  __device__ __forceinline__ void load_values(const uint8_t* part, int slot) {
    const int lane = threadIdx.x & 31;
    const uint8_t* from = one_address(part + (slot + lane % 4 * 2) * kRowBytes + lane / 4 * 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      values[i] = load_page_16(from + value_row(i) * kRowBytes + i % kValuePieces * 128);
    }
    if constexpr (kCodes) load_scales(part, slot, value_scales);
  }
  // What lies in rows from `end` on may be no number, and zero times that is none either.
  __device__ __forceinline__ void clear_values(int end) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if constexpr (kCodes) {
        if (i < 4 && lane / 4 + 8 * i >= end) value_scales[i % 4] = 0.0f;
      } else {
        if (lane % 4 * 2 + value_row(i) >= end) values[i] = make_uint4(0, 0, 0, 0);
      }
    }
  }

  // score[part][2 half + query], of positions l / 4 + 8 half of a part.
  __device__ __forceinline__ void multiply_keys(const uint2* queries, const float* query_scales,
                                                float (&score)[kParts][4]) const {
    const int lane = threadIdx.x & 31;
    if constexpr (kCodes) {
      int high[kParts][4] = {}, low[kParts][4] = {};
      for_constants<0, 4>([&](auto step) {
        constexpr int kStep = decltype(step)::kOf, kPiece = kStep / 2, kWord = kStep % 2 * 2;
        const uint2 b = queries[kStep * 32 + lane], c = queries[(4 + kStep) * 32 + lane];
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const uint4 &first = keys[part * 4 + kPiece], &second = keys[part * 4 + 2 + kPiece];
          const uint32_t a[4] = {word_of<kWord>(first), word_of<kWord>(second), word_of<kWord + 1>(first),
                                 word_of<kWord + 1>(second)};
          mma_codes(high[part], a, b.x, b.y);
          mma_codes(low[part], a, c.x, c.y);
        }
      });
      const float2 scale = *reinterpret_cast<const float2*>(query_scales + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < kParts * 4; ++i) {
        const int sum = high[i / 4][i % 4] * 256 + low[i / 4][i % 4];
        score[i / 4][i % 4] = static_cast<float>(sum) * (key_scales[i / 2] * (i % 2 == 0 ? scale.x : scale.y));
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[0][i] = 0.0f;
      for_constants<0, 8>([&](auto step) {
        constexpr int kStep = decltype(step)::kOf, kPiece = kStep / 2, kWord = kStep % 2 * 2;
        const uint4 &first = keys[kPiece], &second = keys[4 + kPiece];
        const uint32_t a[4] = {word_of<kWord>(first), word_of<kWord>(second), word_of<kWord + 1>(first),
                               word_of<kWord + 1>(second)};
        const uint2 b = queries[kStep * 32 + lane];
        mma_m16n8k16(score[0], a, b.x, b.y);
      });
    }
  }

  // The A operand of a multiplication with a part's weights: rows are channels. A code c becomes 1152 + c in fp16,
  // which a permutation of bytes makes; WarpAttention knows what is too much.
  template <int kStep, int kPart>
  __device__ __forceinline__ void value_fragment(uint32_t (&a)[4]) const {
    constexpr int kWord = kStep / 2;
    if constexpr (kCodes) {
      constexpr uint32_t kPick = kStep % 2 == 0 ? 0x5140u : 0x7362u;
      const uint4* v = values + kPart * 4;
      const uint32_t low = __byte_perm(word_of<kWord>(v[0]), word_of<kWord>(v[1]), kPick) ^ 0x80808080u;
      const uint32_t high = __byte_perm(word_of<kWord>(v[2]), word_of<kWord>(v[3]), kPick) ^ 0x80808080u;
      a[0] = __byte_perm(low, 0x64646464u, 0x4140), a[1] = __byte_perm(low, 0x64646464u, 0x4342);
      a[2] = __byte_perm(high, 0x64646464u, 0x4140), a[3] = __byte_perm(high, 0x64646464u, 0x4342);
    } else {
      constexpr uint32_t kPick = kStep % 2 == 0 ? 0x5410u : 0x7632u;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 &first = values[i / 2 * 4 + i % 2], &second = values[i / 2 * 4 + 2 + i % 2];
        a[i] = __byte_perm(word_of<kWord>(first), word_of<kWord>(second), kPick);
      }
    }
  }

 private:
  __device__ __forceinline__ static void load_scales(const uint8_t* part, int slot, float (&scales)[kCodes ? 4 : 1]) {
    const float* from = one_address(kv_page_scales(part) + slot + (threadIdx.x & 31) / 4);
#pragma unroll
    for (int i = 0; i < (kCodes ? 4 : 1); ++i) scales[i] = load_page_scale(from + 8 * i);
  }
};

#endif  // __CUDACC__

}  // namespace ringside::cuda
