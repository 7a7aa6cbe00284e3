// Owns: reading UTF-8 and the class of a code point, as the tokenizer's split regex needs them.
// Must never: refuse bytes; what is not valid UTF-8 is reported as such and the caller decides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ringside {

// \p{L}, \p{N} and \s of the regex; the three never overlap. Everything else, unassigned code points too, is kOther.
enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };

struct ClassRange {
  uint32_t first;
  uint32_t last;  // inclusive
  CharClass char_class;
};
// All ranges that are not kOther, ascending and disjoint.
std::span<const ClassRange> class_ranges();

CharClass char_class(uint32_t code_point);

enum class Utf8Status : uint8_t { kValid, kInvalid, kIncomplete };

// One step of the WHATWG UTF-8 decoder. kInvalid: `bytes` is the length of the longest part that could have begun a
// character, at least 1; the decoder writes one U+FFFD for it. kIncomplete: the text ends inside what may be a
// character.
struct Utf8Step {
  Utf8Status status;
  uint32_t code_point;  // only when valid
  size_t bytes;
};
// `at` must be below text.size().
Utf8Step utf8_step(std::string_view text, size_t at);

}  // namespace ringside
