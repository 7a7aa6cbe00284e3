// Owns: the vector of floats of the instruction set that the including file is compiled for.
// Must never: define anything outside an anonymous namespace. The linker keeps one copy of a shared inline function,
// and a copy made for AVX-512 would crash a machine without it. For the same reason kernels call no std:: function.
#pragma once

#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about the deliberately undefined operands inside its own header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#elif defined(RS_NEON)
#include <arm_neon.h>
#endif

#define RS_INLINE static inline __attribute__((always_inline))

namespace ringside::cpu {
namespace {

#if defined(__AVX512F__)

typedef __m512 Vec;
typedef int32_t Lanes __attribute__((vector_size(64), may_alias));
constexpr int kLanes = 16;
constexpr int kManyRows = 6, kManyVecs = 4;  // 24 sums in 32 registers
constexpr int kOneRowVecs = 4;

RS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
RS_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
// The second operand comes out when either is not a number.
RS_INLINE Vec maximum(Vec a, Vec b) { return _mm512_max_ps(a, b); }
RS_INLINE Vec minimum(Vec a, Vec b) { return _mm512_min_ps(a, b); }
RS_INLINE Vec broadcast(float x) { return _mm512_set1_ps(x); }
RS_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
RS_INLINE Vec load(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
RS_INLINE Vec load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

#elif defined(__AVX2__)

typedef __m256 Vec;
typedef int32_t Lanes __attribute__((vector_size(32), may_alias));
constexpr int kLanes = 8;
constexpr int kManyRows = 6, kManyVecs = 2;  // 12 sums in 16 registers
constexpr int kOneRowVecs = 8;

RS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
RS_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
RS_INLINE Vec maximum(Vec a, Vec b) { return _mm256_max_ps(a, b); }
RS_INLINE Vec minimum(Vec a, Vec b) { return _mm256_min_ps(a, b); }
RS_INLINE Vec broadcast(float x) { return _mm256_set1_ps(x); }
RS_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
RS_INLINE Vec load(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
RS_INLINE Vec load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

#elif defined(RS_NEON)

// Every 64-bit ARM has NEON. CMake sets RS_NEON for the files that want it, so that the plain table stays without.
typedef float32x4_t Vec;
typedef int32_t Lanes __attribute__((vector_size(16), may_alias));
constexpr int kLanes = 4;
constexpr int kManyRows = 6, kManyVecs = 4;  // 24 sums in 32 registers
constexpr int kOneRowVecs = 8;

RS_INLINE Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
RS_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
// NEON's own maximum would return the operand that is not a number, whichever it is.
RS_INLINE Vec maximum(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
RS_INLINE Vec minimum(Vec a, Vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
RS_INLINE Vec broadcast(float x) { return vdupq_n_f32(x); }
RS_INLINE Vec load(const float* p) { return vld1q_f32(p); }
RS_INLINE Vec load(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

#else

typedef float Vec __attribute__((vector_size(16), may_alias));
typedef int32_t Lanes __attribute__((vector_size(16), may_alias));
constexpr int kLanes = 4;
constexpr int kManyRows = 4, kManyVecs = 2;
constexpr int kOneRowVecs = 4;

// Baseline x86-64 has no fused multiply-add; product and sum are rounded apart, always.
RS_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
RS_INLINE float fma(float a, float b, float c) { return a * b + c; }
RS_INLINE Vec maximum(Vec a, Vec b) { return a > b ? a : b; }
RS_INLINE Vec minimum(Vec a, Vec b) { return a < b ? a : b; }
RS_INLINE Vec broadcast(float x) { return Vec{x, x, x, x}; }
RS_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
RS_INLINE Vec load(const uint16_t* p) {
  const Lanes bits = Lanes{p[0], p[1], p[2], p[3]} << 16;
  return reinterpret_cast<Vec>(bits);
}
RS_INLINE Vec load(const int8_t* p) { return __builtin_convertvector((Lanes{p[0], p[1], p[2], p[3]}), Vec); }

#endif

// The low byte of each lane.
RS_INLINE void store_bytes(int8_t* p, Lanes v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
  const __m256i low = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
  const int32_t halves[2] = {_mm256_extract_epi32(low, 0), _mm256_extract_epi32(low, 4)};
  __builtin_memcpy(p, halves, sizeof halves);
#elif defined(RS_NEON)
  const int16x4_t halves = vmovn_s32((int32x4_t)v);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
  __builtin_memcpy(p, &bytes, kLanes);
#else
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(v[i]);
#endif
}

RS_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
RS_INLINE void store(float* p, float v) { *p = v; }

// The same by type, for code that treats a vector of columns and a single column at an odd edge alike.
template <class V>
RS_INLINE V load_as(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
RS_INLINE V broadcast_as(float x) {
  if constexpr (sizeof(V) == sizeof(float)) {
    return x;
  } else {
    return broadcast(x);
  }
}

RS_INLINE float widen(float x) { return x; }
RS_INLINE float widen(int8_t x) { return static_cast<float>(x); }
RS_INLINE float widen(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// e^x to about one unit in the last place (Cephes: x = n ln 2 + r, polynomial in r). Not-a-number passes through.
RS_INLINE Vec exponential(Vec x) {
  x = maximum(broadcast(-87.0f), x);
  x = minimum(broadcast(88.0f), x);
  // Adding 1.5·2²³ leaves the rounded n in the low bits of the sum.
  const Vec magic = broadcast(12582912.0f);
  const Vec shifted = fma(x, broadcast(1.44269504088896341f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Vec p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + broadcast(1.0f);
  const Lanes scaled = (Lanes)p + ((Lanes)shifted << 23);
  return (Vec)scaled;
}

RS_INLINE Vec sigmoid(Vec x) { return broadcast(1.0f) / (broadcast(1.0f) + exponential(-x)); }

}  // namespace
}  // namespace ringside::cpu
