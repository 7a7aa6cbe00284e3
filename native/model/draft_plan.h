// Owns: how many draft tokens a pass should check: as many as make the most tokens a second, from how often drafts were
// right and what passes have cost so far. Lookup switches itself off where it does not pay, because none is then the
// best number, and is tried again later, because an old measurement fades. Must never: be asked what the tokens are; it
// decides about speed only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ringside {

// How often the token after a match of so many tokens was the one that came. Counted for each token, whether or not it
// was a draft, so that nothing has to be tried to be known.
class LookupHits {
 public:
  void add(int32_t match_length, bool was_hit);
  double rate(int32_t match_length) const;

 private:
  static constexpr size_t kClasses = 6;
  static size_t class_of(int32_t match_length);
  std::array<double, kClasses> rates_{0.30, 0.60, 0.75, 0.90, 0.95, 0.97};  // as answers about code begin
};

// What a pass of so many rows takes on this machine with this model.
class PassCosts {
 public:
  void add(int64_t rows, double seconds);
  double seconds(int64_t rows) const;

 private:
  static constexpr size_t kKnots = 7;  // 1, 2, 4, … 64 rows, straight lines between them
  std::array<double, kKnots> seconds_{};
  std::array<double, kKnots> weights_{};  // of what was measured near the knot; 0: nothing yet
};

struct DraftPlan {
  int64_t drafts = 0;
  double tokens = 0.0;  // that the pass is expected to yield, this plan's own included
};
// `rows` and `tokens` are those of the pass before drafts after a match of `match_length` tokens, at most `most`, are
// added to it. No match (0) is followed by nothing.
DraftPlan plan_drafts(const LookupHits& hits, const PassCosts& costs, int32_t match_length, int64_t rows, double tokens,
                      int64_t most);

}  // namespace ringside
