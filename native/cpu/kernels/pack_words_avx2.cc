// Owns: the version for eight rows at once.
#include "cpu/kernels/pack_words.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace ringside::cpu {
namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kLineBytes = kRows * 4;

// Four words of one row, and of the row four below it in the upper half: then no step has to cross the halves.
__m256i load(const uint8_t* from, int64_t stride) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 4 * stride));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

// Of a word with the columns 0, 1 | 2, 3 | 4, 5 | 6, 7 the even ones give 0 4 | 2 6 and the odd ones 1 5 | 3 7, two
// bytes each; the shuffle puts the four bytes in order.
__m256i reorder_halves(__m256i stored) {
  const __m256i half = _mm256_set1_epi8(15);
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  const __m256i even = _mm256_and_si256(stored, half);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(stored, 4), half);
  const __m256i even_pairs = _mm256_or_si256(even, _mm256_srli_epi32(even, 12));
  const __m256i odd_pairs = _mm256_or_si256(odd, _mm256_srli_epi32(odd, 12));
  return _mm256_shuffle_epi8(_mm256_blend_epi16(even_pairs, _mm256_slli_epi32(odd_pairs, 16), 0xaa), order);
}

template <bool kIsQ4>
void pack(const uint8_t* rows, int64_t stride, int64_t words, uint8_t* to) {
  for (int64_t row = 0; row < kRows; row += 8) {
    const uint8_t* from = rows + row * stride;
    uint8_t* out = to + row * 4;
    for (int64_t word = 0; word < words; word += 4, from += 16, out += 4 * kLineBytes) {
      __m256i line[4];
      for (int i = 0; i < 4; ++i) {
        line[i] = load(from + i * stride, stride);
        if constexpr (kIsQ4) line[i] = reorder_halves(line[i]);
      }
      const __m256i low_01 = _mm256_unpacklo_epi32(line[0], line[1]);
      const __m256i low_23 = _mm256_unpacklo_epi32(line[2], line[3]);
      const __m256i high_01 = _mm256_unpackhi_epi32(line[0], line[1]);
      const __m256i high_23 = _mm256_unpackhi_epi32(line[2], line[3]);
      const auto store = [&](int64_t i, __m256i value) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * kLineBytes), value);
      };
      store(0, _mm256_unpacklo_epi64(low_01, low_23));
      store(1, _mm256_unpackhi_epi64(low_01, low_23));
      store(2, _mm256_unpacklo_epi64(high_01, high_23));
      store(3, _mm256_unpackhi_epi64(high_01, high_23));
    }
  }
}

}  // namespace

void pack_words_avx2(const uint8_t* rows, int64_t stride, int64_t words, bool is_q4, uint8_t* to) {
  is_q4 ? pack<true>(rows, stride, words, to) : pack<false>(rows, stride, words, to);
}

}  // namespace ringside::cpu
#endif
