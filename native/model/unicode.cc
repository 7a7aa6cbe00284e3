// Owns: reading UTF-8 and looking code points up. The table itself is generated: unicode_tables.cc.
#include "unicode.h"

#include <algorithm>
#include <array>

namespace ringside {
namespace {

CharClass search(uint32_t code_point) {
  std::span<const ClassRange> ranges = class_ranges();
  auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                [](uint32_t value, const ClassRange& range) { return value < range.first; });
  if (after == ranges.begin()) return CharClass::kOther;
  const ClassRange& range = *(after - 1);
  return code_point <= range.last ? range.char_class : CharClass::kOther;
}

// Latin, Greek and Cyrillic are most of what stands in repositories; they get one load instead of a search.
constexpr uint32_t kDirect = 0x800;

std::array<CharClass, kDirect> direct_table() {
  std::array<CharClass, kDirect> table;
  for (uint32_t code_point = 0; code_point < kDirect; ++code_point) table[code_point] = search(code_point);
  return table;
}

// What may follow a lead byte: how many bytes the character has and the limits of the second one (Unicode table 3-7).
struct Lead {
  size_t bytes;  // 0: no character begins so
  uint8_t low;
  uint8_t high;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0)
    return {3, static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80), static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  if (byte < 0xF5)
    return {4, static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80), static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
  return {0, 0, 0};
}

}  // namespace

CharClass char_class(uint32_t code_point) {
  static const std::array<CharClass, kDirect> direct = direct_table();
  return code_point < kDirect ? direct[code_point] : search(code_point);
}

Utf8Step utf8_step(std::string_view text, size_t at) {
  const uint8_t first = static_cast<uint8_t>(text[at]);
  if (first < 0x80) return {Utf8Status::kValid, first, 1};
  const Lead lead = lead_of(first);
  if (lead.bytes == 0) return {Utf8Status::kInvalid, 0, 1};
  uint32_t code_point = first & (0xFFu >> (lead.bytes + 1));
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (at + i == text.size()) return {Utf8Status::kIncomplete, 0, i};
    const uint8_t byte = static_cast<uint8_t>(text[at + i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {Utf8Status::kInvalid, 0, i};
    code_point = code_point << 6 | (byte & 0x3Fu);
  }
  return {Utf8Status::kValid, code_point, lead.bytes};
}

}  // namespace ringside
