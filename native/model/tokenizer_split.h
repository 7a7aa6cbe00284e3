// Owns: cutting text into the words that BPE merges in (the split regex of specification section 8), by hand and in
// linear time. Must never: use a regex engine, or look at what a word means.
#pragma once

#include <cstddef>
#include <string_view>

namespace ringside {

// The one regex that the cutter below stands for. A tokenizer.json with another one is refused.
inline constexpr std::string_view kSplitRegex =
    R"re('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)re";

// The end of the word that begins at `begin`, which must be below text.size(). Words cover the text without gaps. A
// byte that is not part of valid UTF-8 counts as one character that is neither letter, number nor space.
size_t word_end(std::string_view text, size_t begin);

}  // namespace ringside
