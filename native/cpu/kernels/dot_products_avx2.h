// Owns: the integer dot products of dot_products_x86.h in the ways that pay where nothing sums quads in one
// instruction, which is AVX2 alone. Whole numbers add up to the same in any way.
#pragma once

#include "cpu/kernels/dot_products_x86.h"

namespace ringside::cpu {
namespace {

RS_INLINE Ints add_pairs(Ints pairs, Ints codes, Ints values) {
  return _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes, values));
}

template <int kRows, int kVecs, Calls kCalls>
RS_INLINE void add_q4_pairs(const uint8_t* codes, const NextTile& next, const int8_t* x, int64_t x_stride,
                            Ints (&pairs)[kRows][kVecs]) {
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; v += 2) {  // four registers of codes for all rows
    if (kCalls == Calls::kAll) call_line(next, v * kVecBytes / 64);
    const Ints first = load_codes(codes + v * kVecBytes);
    const Ints second = load_codes(codes + (v + 1) * kVecBytes);
    const Ints lows[2] = {low_halves(first), low_halves(second)};
    const Ints highs[2] = {high_halves(first), high_halves(second)};
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Ints low_values = quad_values(x + r * x_stride);
      pairs[r][v] = add_pairs(pairs[r][v], lows[0], low_values);
      pairs[r][v + 1] = add_pairs(pairs[r][v + 1], lows[1], low_values);
      const Ints high_values = quad_values(x + r * x_stride + 4);
      pairs[r][v] = add_pairs(pairs[r][v], highs[0], high_values);
      pairs[r][v + 1] = add_pairs(pairs[r][v + 1], highs[1], high_values);
    }
  }
}

// Half-byte codes and one-byte inputs. Pairs of products fit 16 bits, and so do the sums of those of 32 columns
// (8 · 2 · 15 · 127 = 30480): they are widened once for eight multiplications.
struct PairDots {
  static constexpr int32_t kExcess = 8;
  static constexpr bool kJoinsBytes = false;
  static constexpr bool kSharesCalls = false;
  static constexpr int vecs_of_rows(int rows) { return 8 / rows; }

  template <int kRows, int kVecs, Calls kCalls>
  RS_INLINE void dot_products(const uint8_t* codes, NextTile next, const int8_t* x, int64_t x_stride, int64_t columns,
                              Ints (&dots)[kRows][kVecs]) {
    constexpr int64_t kColumns = 32;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) dots[r][v] = Ints{};
    }
    for (int64_t first = 0; first < columns; first += kColumns) {
      Ints pairs[kRows][kVecs] = {};
#pragma GCC unroll 1
      for (int64_t k = first; k < first + kColumns; k += 8, codes += kQuadBytes, next.at += 64) {
        add_q4_pairs<kRows, kVecs, kCalls>(codes, next, x + k, x_stride, pairs);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) {
          dots[r][v] = add(dots[r][v], pair_sums(pairs[r][v]));
          asm("" : "+m"(dots[r][v]));  // lies in memory, so that the registers are left to the pairs
        }
      }
    }
  }
};

// Codes and two-byte inputs, joined to one number of 16 bits: half the multiplications of a byte at a time. A lane of
// codes becomes its first and third as two words and its second and fourth as two more, so inputs lie in that order.
template <PackedFormat kFormat>
struct WordDots {
  static constexpr bool kIsQ4 = kFormat == PackedFormat::kQ4;
  static constexpr int32_t kExcess = kIsQ4 ? 8 : 0;
  static constexpr bool kJoinsBytes = true;
  static constexpr bool kSharesCalls = true;
  static constexpr int vecs_of_rows(int rows) { return 8 / rows; }

  RS_INLINE Ints widened(const int8_t* bytes) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  }

  RS_INLINE void join_bytes(const int8_t* values, const int8_t* low, int64_t columns, int16_t* words) {
    for (int64_t k = 0; k < columns; k += 16) {
      const Ints joined = _mm256_add_epi16(_mm256_slli_epi16(widened(values + k), 7), widened(low + k));
      const Ints ordered = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(joined, 0xd8), 0xd8);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + k), ordered);
    }
  }

  // x: of words, its stride in bytes.
  template <int kRows, int kVecs, Calls kCalls>
  RS_INLINE void dot_products(const uint8_t* codes, NextTile next, const int8_t* x, int64_t x_stride, int64_t columns,
                              Ints (&dots)[kRows][kVecs]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) dots[r][v] = Ints{};
    }
    constexpr int64_t kColumns = kIsQ4 ? 8 : 4;  // of one vector's codes
#pragma GCC unroll 2
    for (int64_t k = 0; k < columns; k += kColumns, codes += kQuadBytes, x += 2 * kColumns, next.at += 64) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; v += 2) {  // the inputs serve two vectors
        if (calls_for(kCalls, k / kColumns)) call_line(next, v * kVecBytes / 64);
        const Ints a = load_codes(codes + v * kVecBytes);
        const Ints b = load_codes(codes + (v + 1) * kVecBytes);
        if constexpr (kIsQ4) {
          const Ints half = _mm256_set1_epi16(15);
          add_words<kVecs>(a & half, b & half, x, x_stride, v, dots);
          add_words<kVecs>(shifted(a, 8) & half, shifted(b, 8) & half, x + 4, x_stride, v, dots);
          add_words<kVecs>(shifted(a, 4) & half, shifted(b, 4) & half, x + 8, x_stride, v, dots);
          add_words<kVecs>(shifted(a, 12), shifted(b, 12), x + 12, x_stride, v, dots);
        } else {
          add_words<kVecs>(even_bytes(a), even_bytes(b), x, x_stride, v, dots);
          add_words<kVecs>(odd_bytes(a), odd_bytes(b), x + 4, x_stride, v, dots);
        }
      }
    }
  }

 private:
  RS_INLINE void add_to(Ints& sum, Ints products) {
    sum = add(sum, products);
    asm("" : "+x"(sum));
  }
  RS_INLINE Ints shifted(Ints codes, int bits) { return _mm256_srli_epi16(codes, bits); }
  RS_INLINE Ints even_bytes(Ints codes) { return _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8); }
  RS_INLINE Ints odd_bytes(Ints codes) { return _mm256_srai_epi16(codes, 8); }

  // Two columns of two vectors of outputs, every row. Each sum is finished before the next: left to itself, the
  // compiler adds the products of several columns first, runs out of registers and keeps sums in memory.
  template <int kVecs, int kRows>
  RS_INLINE void add_words(Ints a, Ints b, const int8_t* x, int64_t x_stride, int v, Ints (&dots)[kRows][kVecs]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Ints values = quad_values(x + r * x_stride);
      add_to(dots[r][v], _mm256_madd_epi16(a, values));
      add_to(dots[r][v + 1], _mm256_madd_epi16(b, values));
    }
  }
};

}  // namespace
}  // namespace ringside::cpu
