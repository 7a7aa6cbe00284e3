#include "model/checkpoint_pattern.h"

namespace ringside {
namespace {

constexpr size_t kMaxPatternBytes = 128;
constexpr int kMaxGroupDepth = 16;

using Set = std::bitset<256>;

Set range(unsigned char from, unsigned char to) {
  Set set;
  for (unsigned c = from; c <= to; ++c) set.set(c);
  return set;
}

// "\d" and its like, or the character itself when it has no letter's meaning.
std::optional<Set> escaped(char c) {
  const Set digits = range('0', '9');
  const Set words = digits | range('a', 'z') | range('A', 'Z') | range('_', '_');
  const Set blanks = range('\t', '\r') | range(' ', ' ');
  switch (c) {
    case 'd':
      return digits;
    case 'D':
      return ~digits;
    case 'w':
      return words;
    case 'W':
      return ~words;
    case 's':
      return blanks;
    case 'S':
      return ~blanks;
    default: {
      const unsigned char byte = static_cast<unsigned char>(c);
      if (words.test(byte)) return std::nullopt;
      return range(byte, byte);
    }
  }
}

}  // namespace

// Jumps are relative, so code may be moved to make room for the split that a "*" behind it needs.
class PatternCompiler {
 public:
  explicit PatternCompiler(std::string_view pattern) : pattern_(pattern) {}

  std::optional<NamePattern> compile() {
    if (!alternatives(0) || at_ != pattern_.size()) return std::nullopt;
    emit(Step::kMatch);
    return std::move(out_);
  }

 private:
  using Step = NamePattern::Step;

  bool done() const { return at_ == pattern_.size(); }
  bool take(char c) {
    if (done() || pattern_[at_] != c) return false;
    ++at_;
    return true;
  }
  int32_t size() const { return static_cast<int32_t>(out_.program_.size()); }
  void emit(Step step, int32_t first = 0, int32_t second = 0) { out_.program_.push_back({step, first, second}); }
  void insert_split(int32_t at, int32_t second) {
    out_.program_.insert(out_.program_.begin() + at, {Step::kSplit, 1, second});
  }
  void emit_set(const Set& set) {
    emit(Step::kSet, static_cast<int32_t>(out_.sets_.size()));
    out_.sets_.push_back(set);
  }

  bool alternatives(int depth) {
    const int32_t start = size();
    if (!sequence(depth)) return false;
    if (!take('|')) return true;
    insert_split(start, size() - start + 2);
    const int32_t jump = size();
    emit(Step::kJump);
    if (!alternatives(depth)) return false;
    out_.program_[static_cast<size_t>(jump)].first = size() - jump;
    return true;
  }

  bool sequence(int depth) {
    while (!done() && pattern_[at_] != '|' && pattern_[at_] != ')') {
      const int32_t start = size();
      if (!atom(depth) || !repetition(start)) return false;
    }
    return true;
  }

  bool repetition(int32_t start) {
    const int32_t length = size() - start;
    if (take('*')) {
      insert_split(start, length + 2);
      emit(Step::kJump, -(length + 1));
    } else if (take('+')) {
      emit(Step::kSplit, -length, 1);
    } else if (take('?')) {
      insert_split(start, length + 1);
    } else {
      return true;
    }
    take('?');  // a lazy repetition finds the same names
    return done() || (pattern_[at_] != '*' && pattern_[at_] != '+' && pattern_[at_] != '?');
  }

  bool atom(int depth) {
    const char c = pattern_[at_++];
    switch (c) {
      case '(':
        if (depth == kMaxGroupDepth) return false;
        if (take('?') && !take(':')) return false;
        return alternatives(depth + 1) && take(')');
      case '[':
        return character_class();
      case '.':
        emit_set(~range('\n', '\n'));
        return true;
      case '^':
        emit(Step::kBegin);
        return true;
      case '$':
        emit(Step::kEnd);
        return true;
      case '\\': {
        if (done()) return false;
        const std::optional<Set> set = escaped(pattern_[at_++]);
        if (set) emit_set(*set);
        return set.has_value();
      }
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
        return false;
      default:
        emit_set(range(static_cast<unsigned char>(c), static_cast<unsigned char>(c)));
        return true;
    }
  }

  bool character_class() {
    const bool negated = take('^');
    Set set;
    bool first = true;
    while (!done() && (pattern_[at_] != ']' || first)) {
      first = false;
      const unsigned char from = static_cast<unsigned char>(pattern_[at_++]);
      if (from == '\\') {
        if (done()) return false;
        const std::optional<Set> part = escaped(pattern_[at_++]);
        if (!part) return false;
        set |= *part;
        continue;
      }
      unsigned char to = from;
      if (at_ + 1 < pattern_.size() && pattern_[at_] == '-' && pattern_[at_ + 1] != ']') {
        to = static_cast<unsigned char>(pattern_[at_ + 1]);
        if (to == '\\' || to < from) return false;
        at_ += 2;
      }
      set |= range(from, to);
    }
    if (!take(']')) return false;
    emit_set(negated ? ~set : set);
    return true;
  }

  std::string_view pattern_;
  size_t at_ = 0;
  NamePattern out_;
};

std::optional<NamePattern> NamePattern::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) return std::nullopt;
  return PatternCompiler(pattern).compile();
}

// Adds the states reachable from `at` without taking a character. `seen` ends loops such as (a*)*.
void NamePattern::follow(size_t at, size_t position, size_t length, std::vector<bool>& seen,
                         std::vector<size_t>& states) const {
  if (seen[at]) return;
  seen[at] = true;
  const Instruction& instruction = program_[at];
  const auto target = [at](int32_t relative) { return static_cast<size_t>(static_cast<int64_t>(at) + relative); };
  switch (instruction.step) {
    case Step::kSplit:
      follow(target(instruction.first), position, length, seen, states);
      follow(target(instruction.second), position, length, seen, states);
      return;
    case Step::kJump:
      follow(target(instruction.first), position, length, seen, states);
      return;
    case Step::kBegin:
      if (position == 0) follow(at + 1, position, length, seen, states);
      return;
    case Step::kEnd:
      if (position == length) follow(at + 1, position, length, seen, states);
      return;
    case Step::kSet:
    case Step::kMatch:
      states.push_back(at);
      return;
  }
}

bool NamePattern::matches(std::string_view name) const {
  std::vector<size_t> states;
  std::vector<size_t> next;
  std::vector<bool> seen(program_.size(), false);
  follow(0, 0, name.size(), seen, states);
  for (size_t position = 0; !states.empty(); ++position) {
    next.clear();
    seen.assign(program_.size(), false);
    for (const size_t state : states) {
      const Instruction& instruction = program_[state];
      if (instruction.step == Step::kMatch) return true;
      if (position == name.size()) continue;
      if (sets_[static_cast<size_t>(instruction.first)].test(static_cast<unsigned char>(name[position]))) {
        follow(state + 1, position + 1, name.size(), seen, next);
      }
    }
    states.swap(next);
  }
  return false;
}

}  // namespace ringside
