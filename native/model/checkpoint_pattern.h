// Owns: matching module names against the patterns of a quantization_config. A pattern comes from a stranger's file, so
// it runs as a state machine in time linear in the name: no backtracking, no exceptions. Private to model/.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ringside {

class NamePattern {
 public:
  // The common part of regular expressions: literals, ".", "[a-z]", "\d" "\w" "\s" and their opposites, "^", "$",
  // groups, "|", "*", "+", "?". Nothing for any other construct, or for a pattern over 128 bytes.
  static std::optional<NamePattern> compile(std::string_view pattern);
  // True when the pattern matches from the start of `name`; it need not reach the end unless it says so with "$".
  bool matches(std::string_view name) const;

 private:
  friend class PatternCompiler;
  enum class Step : uint8_t { kSet, kSplit, kJump, kBegin, kEnd, kMatch };
  struct Instruction {
    Step step;
    int32_t first = 0;   // kSplit, kJump: relative target; kSet: place in sets_
    int32_t second = 0;  // kSplit: the other relative target
  };
  void follow(size_t at, size_t position, size_t length, std::vector<bool>& seen, std::vector<size_t>& states) const;

  std::vector<Instruction> program_;
  std::vector<std::bitset<256>> sets_;
};

}  // namespace ringside
