// Makes tokenizer.json texts for tests: from a list of merges, and one of the size of the real vocabulary. Always the
// same text for the same arguments; never reads a file.
#pragma once

#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/json.h"
#include "model/tokenizer_split.h"

namespace synthetic {

using Merges = std::vector<std::pair<std::string, std::string>>;  // pairs of raw bytes, by rank

// xorshift64*: the standard library's engines are fixed by the standard, its distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du >> 16;
  }
  size_t below(size_t limit) { return static_cast<size_t>(next() % limit); }
  template <class T>
  const T& pick(const std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  uint64_t state_;
};

inline void append_code_point(std::string& text, uint32_t code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
    return;
  }
  const int tail_bytes = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  const uint32_t lead = tail_bytes == 1 ? 0xC0 : tail_bytes == 2 ? 0xE0 : 0xF0;
  text += static_cast<char>(lead | code_point >> (6 * tail_bytes));
  for (int i = tail_bytes - 1; i >= 0; --i) text += static_cast<char>(0x80 | (code_point >> (6 * i) & 0x3F));
}

// GPT-2's way to write any byte as a printable character.
inline std::string spelling_of(std::string_view bytes) {
  std::string spelling;
  for (char signed_byte : bytes) {
    const uint32_t byte = static_cast<uint8_t>(signed_byte);
    uint32_t code_point = byte;
    if (byte <= 0x20) code_point = 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0) code_point = 0x121 + (byte - 0x7F);
    if (byte == 0xAD) code_point = 0x143;
    append_code_point(spelling, code_point);
  }
  return spelling;
}

struct Options {
  std::vector<std::string> added = {};  // they get the ids after the vocabulary
  bool merges_as_strings = false;
};

// Ids: byte b is b, then the distinct results of the merges in their order, then the added tokens.
inline std::string tokenizer_json(const Merges& merges, const Options& options = {}) {
  std::string vocabulary;
  std::string merge_list;
  std::string added;
  int32_t id = 0;
  const auto add_token = [&](const std::string& spelling) {
    if (id > 0) vocabulary += ',';
    vocabulary += ringside::json::quote(spelling) + ":" + std::to_string(id);
    ++id;
  };
  for (int byte = 0; byte < 256; ++byte) add_token(spelling_of(std::string(1, static_cast<char>(byte))));
  std::set<std::string> known;
  for (const auto& [left, right] : merges) {
    if (known.insert(left + right).second) add_token(spelling_of(left + right));
    const std::string a = spelling_of(left);
    const std::string b = spelling_of(right);
    if (!merge_list.empty()) merge_list += ',';
    if (options.merges_as_strings) {
      merge_list += ringside::json::quote(a + " " + b);
    } else {
      merge_list.append("[").append(ringside::json::quote(a)).append(",").append(ringside::json::quote(b)).append("]");
    }
  }
  for (const std::string& content : options.added) {
    if (!added.empty()) added += ',';
    added.append(R"({"id":)")
        .append(std::to_string(id++))
        .append(R"(,"content":)")
        .append(ringside::json::quote(content));
    added += R"(,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
  }
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)" + added +
         R"(],"normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)" +
         ringside::json::quote(ringside::kSplitRegex) +
         R"(},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)" +
         R"("use_regex":false}]},"post_processor":null,"decoder":null,"model":{"type":"BPE","dropout":null,"unk_token":null,)" +
         R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,)" +
         R"("ignore_merges":false,"vocab":{)" + vocabulary + R"(},"merges":[)" + merge_list + "]}}";
}

// Syllables, then pairs and triples of them, with and without a space or a capital: about as deep as real merges are.
inline std::vector<std::string> syllables() {
  std::vector<std::string> list;
  for (char consonant : std::string_view("bcdfghjklmnpqrstvwxyz")) {
    for (char vowel : std::string_view("aeiou")) list.push_back({consonant, vowel});
  }
  return list;
}

inline Merges merges_of_size(size_t count) {
  Merges merges;
  std::set<std::string> known;
  const auto add = [&](const std::string& left, const std::string& right) {
    if (merges.size() < count && known.insert(left + right).second) merges.emplace_back(left, right);
  };
  for (size_t spaces = 1; spaces <= 64; spaces *= 2) add(std::string(spaces, ' '), std::string(spaces, ' '));
  for (const char* pair : {"()", "{}", "[]", "==", "=>", "->", "//", "\n\n", "; ", ");", "},", "::"}) {
    add(std::string(1, pair[0]), std::string(1, pair[1]));
  }
  std::vector<std::string> words = syllables();
  for (const std::string& word : words) add(word.substr(0, 1), word.substr(1));
  for (const std::string& word : words) add(" ", word);
  Random random(157);
  while (merges.size() < count) {
    const std::string longer = random.pick(words) + random.pick(syllables());
    if (longer.size() > 24) continue;
    const size_t known_before = merges.size();
    add(longer.substr(0, longer.size() - 2), longer.substr(longer.size() - 2));
    if (merges.size() > known_before) words.push_back(longer);
    if (random.below(3) == 0 && merges.size() > known_before) add(" ", longer);
  }
  return merges;
}

// Text that looks like source: identifiers that repeat and some that do not, indentation, punctuation and digits.
inline std::string source_text(size_t bytes, uint64_t seed) {
  Random random(seed);
  const std::vector<std::string> parts = syllables();
  const auto identifier = [&] {
    std::string name;
    for (size_t i = 0, count = 1 + random.below(6); i < count; ++i) {
      std::string part = random.pick(parts);
      if (i > 0 && random.below(4) == 0) part[0] = static_cast<char>(part[0] - 'a' + 'A');
      name += part;
    }
    return name;
  };
  std::vector<std::string> names;
  for (int i = 0; i < 5000; ++i) names.push_back(identifier());
  const std::vector<std::string> joints = {" ",    ".",   "(",    ") ", ", ", " = ", ";\n",
                                           " {\n", "}\n", " => ", "[",  "]",  "::"};
  std::string text;
  while (text.size() < bytes) {
    if (text.empty() || text.back() == '\n') text.append(4 * random.below(5), ' ');
    // Small indices are far more likely, as common names are in real code.
    text += random.below(8) == 0 ? identifier() : names[random.below(1 + random.below(names.size()))];
    if (random.below(12) == 0) text += std::to_string(random.below(10000));
    text += random.pick(joints);
  }
  return text;
}

}  // namespace synthetic
