// Owns: the version that needs no more than the four words in one register that every machine has.
#include "cpu/kernels/pack_words.h"

#include <cstring>

namespace ringside::cpu {
namespace {

constexpr int64_t kRows = 64;

typedef uint32_t Words __attribute__((vector_size(16)));

Words load(const uint8_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

void store(uint8_t* to, Words words) { std::memcpy(to, &words, sizeof words); }

// Byte b of a stored word holds columns 2b and 2b + 1; of a tile's word, columns b and 4 + b.
Words reorder_halves(Words stored) {
  Words first = stored & 0xffffu;
  Words last = stored >> 16;
  first = (first | first << 8) & 0x00ff00ffu;
  last = (last | last << 8) & 0x00ff00ffu;
  first = (first | first << 4) & 0x0f0f0f0fu;
  last = (last | last << 4) & 0x0f0f0f0fu;
  return first | last << 4;
}

template <bool kIsQ4>
void pack(const uint8_t* rows, int64_t stride, int64_t words, uint8_t* to) {
  constexpr int64_t kLineBytes = kRows * 4;
  for (int64_t row = 0; row < kRows; row += 4) {
    const uint8_t* from = rows + row * stride;
    uint8_t* out = to + row * 4;
    for (int64_t word = 0; word < words; word += 4, from += 16, out += 4 * kLineBytes) {
      Words a = load(from);
      Words b = load(from + stride);
      Words c = load(from + 2 * stride);
      Words d = load(from + 3 * stride);
      if constexpr (kIsQ4) {
        a = reorder_halves(a);
        b = reorder_halves(b);
        c = reorder_halves(c);
        d = reorder_halves(d);
      }
      const Words ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Words ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Words cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Words cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      store(out, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
      store(out + kLineBytes, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
      store(out + 2 * kLineBytes, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
      store(out + 3 * kLineBytes, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
    }
  }
}

}  // namespace

void pack_words(const uint8_t* rows, int64_t stride, int64_t words, bool is_q4, uint8_t* to) {
  is_q4 ? pack<true>(rows, stride, words, to) : pack<false>(rows, stride, words, to);
}

}  // namespace ringside::cpu
