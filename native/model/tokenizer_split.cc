// Owns: the split regex as code: each alternative is one function that returns the end of its match, or its begin for
// none. Must never: back up over more than one character, so that a text of n bytes costs O(n).
#include "tokenizer_split.h"

#include "unicode.h"

namespace ringside {
namespace {

struct Character {
  CharClass char_class;
  size_t end;
};

Character character_at(std::string_view text, size_t at) {
  const Utf8Step step = utf8_step(text, at);
  if (step.status != Utf8Status::kValid) return {CharClass::kOther, at + 1};
  return {char_class(step.code_point), at + step.bytes};
}

size_t run_end(std::string_view text, size_t at, CharClass wanted) {
  while (at < text.size()) {
    const Character character = character_at(text, at);
    if (character.char_class != wanted) break;
    at = character.end;
  }
  return at;
}

bool is_line_end(char byte) { return byte == '\r' || byte == '\n'; }

char lower(char byte) { return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + ('a' - 'A')) : byte; }

// '(?i:[sdmt]|ll|ve|re)
// Ignoring case, Oniguruma also takes U+017F (long s, 0xC5 0xBF) for s; no other character folds to one of these
// letters.
size_t contraction_end(std::string_view text, size_t begin) {
  if (text[begin] != '\'' || begin + 1 == text.size()) return begin;
  const char first = lower(text[begin + 1]);
  if (first == 's' || first == 'd' || first == 'm' || first == 't') return begin + 2;
  if (begin + 2 == text.size()) return begin;
  const char second = text[begin + 2];
  if (first == '\xC5' && second == '\xBF') return begin + 3;
  const bool is_pair =
      (first == 'l' && lower(second) == 'l') || ((first == 'v' || first == 'r') && lower(second) == 'e');
  return is_pair ? begin + 3 : begin;
}

// [^\r\n\p{L}\p{N}]?+\p{L}+
size_t letters_end(std::string_view text, size_t begin) {
  const Character first = character_at(text, begin);
  if (first.char_class == CharClass::kLetter) return run_end(text, first.end, CharClass::kLetter);
  if (first.char_class == CharClass::kNumber || is_line_end(text[begin])) return begin;
  const size_t end = run_end(text, first.end, CharClass::kLetter);
  return end > first.end ? end : begin;
}

// \p{N}
size_t number_end(std::string_view text, size_t begin) {
  const Character first = character_at(text, begin);
  return first.char_class == CharClass::kNumber ? first.end : begin;
}

//  ?[^\s\p{L}\p{N}]++[\r\n]*
size_t symbols_end(std::string_view text, size_t begin) {
  const size_t start = text[begin] == ' ' ? begin + 1 : begin;
  size_t end = run_end(text, start, CharClass::kOther);
  if (end == start) return begin;
  while (end < text.size() && is_line_end(text[end])) ++end;
  return end;
}

// \s*[\r\n]|\s+(?!\S)|\s+
size_t spaces_end(std::string_view text, size_t begin) {
  size_t end = begin;
  size_t last_begin = begin;  // where the last space of the run begins
  size_t line_end = begin;    // behind the last line end of the run
  while (end < text.size()) {
    const Character character = character_at(text, end);
    if (character.char_class != CharClass::kSpace) break;
    last_begin = end;
    end = character.end;
    if (is_line_end(text[last_begin])) line_end = end;
  }
  if (line_end > begin) return line_end;
  // The last space before a word belongs to the word, unless it is the only one.
  return end < text.size() && last_begin > begin ? last_begin : end;
}

}  // namespace

size_t word_end(std::string_view text, size_t begin) {
  for (auto alternative : {contraction_end, letters_end, number_end, symbols_end}) {
    const size_t end = alternative(text, begin);
    if (end > begin) return end;
  }
  return spaces_end(text, begin);
}

}  // namespace ringside
