// Owns: integer dot products of int8 activations with the codes of one group, for each x86 instruction set:
// dots[row][vector] = Σ code · value, where a code of kQ4 counts 8 too high and a code of kQ8 kQ8Excess too high.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/vector.h"

namespace ringside::cpu {
namespace {

constexpr int64_t kQuadBytes = 4 * kTileRows;  // the whole tile of four columns, or of eight in half bytes
constexpr int64_t kVecBytes = 4 * kLanes;      // of these, the outputs of one vector
// What is read after a tile. While the tile is multiplied, each of its lines calls for one of the lines there, in four
// streams of a quarter each. The hardware alone looks ahead no further than a page and starts anew in each; so four
// pages are always under way, and nothing is waited for where one tile ends and the next begins.
struct NextTile {
  const uint8_t* at;  // the line to go with the first one of this quad of columns
  int64_t stream_bytes;
};

// Which lines of the next tile some rows call for while they pass a group. Two blocks of rows share the lines, so that
// memory is asked evenly: one block alone would ask for more than memory gives and leave it idle afterwards.
enum class Calls { kNone, kEven, kOdd, kAll };

RS_INLINE constexpr bool calls_for(Calls calls, int64_t quad) {
  return calls == Calls::kAll || (calls == Calls::kEven && quad % 2 == 0) || (calls == Calls::kOdd && quad % 2 != 0);
}

RS_INLINE void call_line(const NextTile& next, int64_t line_of_quad) {
  __builtin_prefetch(next.at + line_of_quad * next.stream_bytes);
}

// --- What the instruction sets have in common: a vector of 32-bit sums.

#if defined(__AVX512F__)
typedef __m512i Ints;
RS_INLINE Ints load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
RS_INLINE Ints broadcast_ints(int32_t x) { return _mm512_set1_epi32(x); }
RS_INLINE Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
RS_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
RS_INLINE Ints times_128(Ints a) { return _mm512_slli_epi32(a, 7); }
RS_INLINE Vec to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
RS_INLINE Ints low_halves(Ints both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
RS_INLINE Ints high_halves(Ints both) { return low_halves(_mm512_srli_epi16(both, 4)); }
RS_INLINE Ints flip_signs(Ints codes) { return _mm512_xor_si512(codes, _mm512_set1_epi8(-128)); }
#else
typedef __m256i Ints;
RS_INLINE Ints load_codes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
RS_INLINE Ints broadcast_ints(int32_t x) { return _mm256_set1_epi32(x); }
RS_INLINE Ints subtract(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
RS_INLINE Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
RS_INLINE Ints times_128(Ints a) { return _mm256_slli_epi32(a, 7); }
RS_INLINE Vec to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
RS_INLINE Ints low_halves(Ints both) { return _mm256_and_si256(both, _mm256_set1_epi8(15)); }
RS_INLINE Ints high_halves(Ints both) { return low_halves(_mm256_srli_epi16(both, 4)); }
RS_INLINE Ints flip_signs(Ints codes) { return _mm256_xor_si256(codes, _mm256_set1_epi8(-128)); }
#endif

// The four values that meet a quad of columns, for every output.
RS_INLINE Ints quad_values(const int8_t* x) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return broadcast_ints(quad);
}

// --- sum + Σ of four unsigned codes times four values, in each lane.

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

constexpr int32_t kQ8Excess = 128;  // signed codes are made unsigned by flipping their signs

#if defined(__AVX512VNNI__)
RS_INLINE Ints add_products(Ints sum, Ints codes, Ints values) { return _mm512_dpbusd_epi32(sum, codes, values); }
#else
RS_INLINE Ints add_products(Ints sum, Ints codes, Ints values) { return _mm256_dpbusd_avx_epi32(sum, codes, values); }
#endif
struct Q8Codes {
  Ints codes;
};
RS_INLINE Q8Codes q8_codes(Ints codes) { return {flip_signs(codes)}; }
RS_INLINE Ints add_q8(Ints sum, Q8Codes w, Ints values) { return add_products(sum, w.codes, values); }

#elif defined(__AVX512F__)

constexpr int32_t kQ8Excess = 0;

RS_INLINE Ints pair_sums(Ints products) { return _mm512_madd_epi16(products, _mm512_set1_epi16(1)); }
RS_INLINE Ints add_products(Ints sum, Ints codes, Ints values) {
  return add(sum, pair_sums(_mm512_maddubs_epi16(codes, values)));
}
// The multiplication takes one side unsigned, so the sign of a code moves to the value. Two products reach at most
// 2 · 128 · 127, which 16 bits hold; with the codes made unsigned by flipping signs they would not.
struct Q8Codes {
  Ints magnitudes;
  __mmask64 negative;
};
RS_INLINE Q8Codes q8_codes(Ints codes) { return {_mm512_abs_epi8(codes), _mm512_movepi8_mask(codes)}; }
RS_INLINE Ints add_q8(Ints sum, Q8Codes w, Ints values) {
  return add_products(sum, w.magnitudes, _mm512_mask_sub_epi8(values, w.negative, _mm512_setzero_si512(), values));
}

#else

constexpr int32_t kQ8Excess = 0;

RS_INLINE Ints pair_sums(Ints products) { return _mm256_madd_epi16(products, _mm256_set1_epi16(1)); }
RS_INLINE Ints add_products(Ints sum, Ints codes, Ints values) {
  return add(sum, pair_sums(_mm256_maddubs_epi16(codes, values)));
}
// As for AVX-512 above.
struct Q8Codes {
  Ints codes;
};
RS_INLINE Q8Codes q8_codes(Ints codes) { return {codes}; }
RS_INLINE Ints add_q8(Ints sum, Q8Codes w, Ints values) {
  return add_products(sum, _mm256_abs_epi8(w.codes), _mm256_sign_epi8(values, w.codes));
}

#endif

// --- One group.

#if defined(__AVX512F__)
constexpr int kMostRows = 6;  // 24 sums in 32 registers
constexpr int vecs_of_rows(int) { return 4; }
#else
constexpr int kMostRows = 4;  // 8 sums in 16 registers
constexpr int vecs_of_rows(int rows) { return rows == 1 ? 8 : 8 / rows; }
#endif

template <int kRows, int kVecs, Calls kCalls>
RS_INLINE void add_q8_quad(const uint8_t* codes, const NextTile& next, const int8_t* x, int64_t x_stride,
                           Ints (&sums)[kRows][kVecs]) {
  Q8Codes w[kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    if (kCalls == Calls::kAll && v * kVecBytes % 64 == 0) call_line(next, v * kVecBytes / 64);
    w[v] = q8_codes(load_codes(codes + v * kVecBytes));
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Ints values = quad_values(x + r * x_stride);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) sums[r][v] = add_q8(sums[r][v], w[v], values);
  }
}

template <int kRows, int kVecs, Calls kCalls>
RS_INLINE void add_q4_quads(const uint8_t* codes, const NextTile& next, const int8_t* x, int64_t x_stride,
                            Ints (&sums)[kRows][kVecs]) {
  Ints w[kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) {
    if (kCalls == Calls::kAll && v * kVecBytes % 64 == 0) call_line(next, v * kVecBytes / 64);
    w[v] = low_halves(load_codes(codes + v * kVecBytes));
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Ints values = quad_values(x + r * x_stride);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) sums[r][v] = add_products(sums[r][v], w[v], values);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) w[v] = high_halves(load_codes(codes + v * kVecBytes));
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Ints values = quad_values(x + r * x_stride + 4);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) sums[r][v] = add_products(sums[r][v], w[v], values);
  }
}

// A byte of the inputs at a time: two-byte inputs take two.
template <PackedFormat kFormat>
struct ByteDots {
  static constexpr int32_t kExcess = kFormat == PackedFormat::kQ4 ? 8 : kQ8Excess;
  static constexpr bool kJoinsBytes = false;
  static constexpr bool kSharesCalls = false;
  static constexpr int vecs_of_rows(int rows) { return ringside::cpu::vecs_of_rows(rows); }

  template <int kRows, int kVecs, Calls kCalls>
  RS_INLINE void dot_products(const uint8_t* codes, NextTile next, const int8_t* x, int64_t x_stride, int64_t columns,
                              Ints (&dots)[kRows][kVecs]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) dots[r][v] = Ints{};
    }
    if constexpr (kFormat == PackedFormat::kQ8) {
      for (int64_t k = 0; k < columns; k += 8, codes += 2 * kQuadBytes) {
        add_q8_quad<kRows, kVecs, kCalls>(codes, next, x + k, x_stride, dots);
        next.at += 64;
        add_q8_quad<kRows, kVecs, kCalls>(codes + kQuadBytes, next, x + k + 4, x_stride, dots);
        next.at += 64;
      }
    } else {
      for (int64_t k = 0; k < columns; k += 8, codes += kQuadBytes, next.at += 64) {
        add_q4_quads<kRows, kVecs, kCalls>(codes, next, x + k, x_stride, dots);
      }
    }
  }
};

}  // namespace
}  // namespace ringside::cpu
