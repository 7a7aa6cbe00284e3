// Owns: an index over a session's own tokens that finds where its last tokens stood before, so that what followed there
// can be tried as a draft (prompt lookup: speculation without a draft model).
// Must never: hold a copy of the tokens, nor decide how many of them are worth trying (draft_plan.h).
//
// Two hash chains as in LZ77: for each position the earlier one whose last n tokens have the same hash, latest first.
// Long n-grams lead straight to the place that is being quoted; short ones find a beginning. Taking tokens off the end
// undoes the chains exactly. On answers about code a suffix automaton's drafts were the same, at three times the memory
// (54 bytes a token), nine times the time to build (94 ms for 128K tokens) and no way back.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace ringside {

class PromptLookup {
 public:
  // Where the last `length` tokens ended before: tokens[next] is what followed. length 0: nowhere.
  struct Match {
    int32_t next = 0;
    int32_t length = 0;
  };

  // `tokens` begins with the tokens already held. Throws std::bad_alloc; the index is then as before.
  void extend(std::span<const int32_t> tokens);
  // Forgets all but the first `keep` of `tokens`, which are the tokens held or more.
  void cut(std::span<const int32_t> tokens, int64_t keep);

  int64_t held() const { return held_; }  // tokens
  const Match& match() const { return match_; }
  // Fills `draft` with what followed the match, which must be there, last time. Where that runs into the end of the
  // tokens it goes on with itself: a repetition is taken to repeat.
  void propose(std::span<const int32_t> tokens, std::span<int32_t> draft) const;
  int64_t bytes() const;

 private:
  // Positions are those of an n-gram's last token.
  struct Chain {
    int32_t gram_tokens;
    std::vector<int32_t> latest;   // by hash; a power of two of them
    std::vector<int32_t> earlier;  // by position
  };

  static uint64_t hash(const Chain& chain, std::span<const int32_t> tokens, int64_t position);
  static void insert(Chain& chain, std::span<const int32_t> tokens, int64_t position);
  void reserve(std::span<const int32_t> tokens);
  Match longest(std::span<const int32_t> tokens) const;

  std::array<Chain, 2> chains_{Chain{8, {}, {}}, Chain{2, {}, {}}};
  int64_t held_ = 0;
  Match match_;
};

}  // namespace ringside
