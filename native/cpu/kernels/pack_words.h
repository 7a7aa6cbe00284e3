// Owns: the heart of packing: 64 rows of 32-bit words become words of 64 rows. Both versions give the same bytes; wider
// instructions than AVX2 would only wait for the memory.
#pragma once

#include <cstdint>

namespace ringside::cpu {

// to[word][row] = rows[row][word] for 64 rows, `stride` bytes apart, and a multiple of 4 words. With `is_q4` the eight
// halves of each word go from the order of a file (even columns in the low halves) to the order of a tile.
using PackWords = void (*)(const uint8_t* rows, int64_t stride, int64_t words, bool is_q4, uint8_t* to);

void pack_words(const uint8_t* rows, int64_t stride, int64_t words, bool is_q4, uint8_t* to);
#if defined(__x86_64__)
void pack_words_avx2(const uint8_t* rows, int64_t stride, int64_t words, bool is_q4, uint8_t* to);
#endif

}  // namespace ringside::cpu
