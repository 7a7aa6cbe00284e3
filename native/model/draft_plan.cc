#include "draft_plan.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ringside {
namespace {

// A rate follows about its last thirty tokens, a cost about its last five passes.
constexpr double kHitShare = 1.0 / 32;
constexpr double kCostShare = 1.0 / 5;
// So much of its excess over the next smaller pass does a cost lose that no pass confirms: after some hundred passes a
// size that was once too dear is tried again.
constexpr double kFading = 1.0 / 512;

// Of a pass twice as large, as a share of what the smaller one takes.
constexpr double kLeastStep = 0.1;
// Drafts that bring less are not worth the risk that the estimates are wrong.
constexpr double kLeastGain = 1.05;

}  // namespace

// 1-2, 3-4, 5-8, 9-16, 17-32 and more tokens.
size_t LookupHits::class_of(int32_t match_length) {
  const auto longer = static_cast<uint32_t>(std::max(match_length, 2) - 1);
  return std::min<size_t>(static_cast<size_t>(std::bit_width(longer)) - 1, kClasses - 1);
}

void LookupHits::add(int32_t match_length, bool was_hit) {
  double& rate = rates_[class_of(match_length)];
  rate += kHitShare * ((was_hit ? 1.0 : 0.0) - rate);
}

double LookupHits::rate(int32_t match_length) const { return rates_[class_of(match_length)]; }

void PassCosts::add(int64_t rows, double seconds) {
  const double place = std::log2(static_cast<double>(rows));
  for (size_t knot = 0; knot < kKnots; ++knot) {
    const double weight = std::max(0.0, 1.0 - std::fabs(place - static_cast<double>(knot)));
    if (weight > 0.0) {
      weights_[knot] = std::min(weights_[knot] + weight, 1.0 / kCostShare);
      seconds_[knot] += weight / weights_[knot] * (seconds - seconds_[knot]);  // the first one as it is
    }
  }
  for (size_t knot = 1; knot < kKnots; ++knot) {
    const double before = seconds_[knot - 1];
    if (weights_[knot] == 0.0) {
      // What was never measured is taken to cost as much more again as the last doubling did: less than it may turn out
      // to, so that it is tried, and not so little that the first try is a large one.
      const double last_step = knot == 1 ? 0.0 : before - seconds_[knot - 2];
      seconds_[knot] = before + std::max(last_step, kLeastStep * before);
    } else if (std::fabs(place - static_cast<double>(knot)) >= 1.0) {
      seconds_[knot] -= kFading * std::max(0.0, seconds_[knot] - before);
    }
  }
}

double PassCosts::seconds(int64_t rows) const {
  const double place = std::log2(static_cast<double>(rows));
  const auto below = std::min(static_cast<size_t>(place), kKnots - 2);
  const double share = place - static_cast<double>(below);
  return seconds_[below] + share * (seconds_[below + 1] - seconds_[below]);
}

DraftPlan plan_drafts(const LookupHits& hits, const PassCosts& costs, int32_t match_length, int64_t rows, double tokens,
                      int64_t most) {
  DraftPlan best{0, tokens};
  if (match_length == 0 || costs.seconds(rows) <= 0.0) return best;
  double best_speed = kLeastGain * tokens / costs.seconds(rows);
  double chance = 1.0;  // that all drafts so far are right
  double expected = tokens;
  for (int64_t drafts = 1; drafts <= most; ++drafts) {
    chance *= hits.rate(match_length + static_cast<int32_t>(drafts) - 1);
    expected += chance;
    const double speed = expected / costs.seconds(rows + drafts);
    if (speed <= best_speed) continue;
    best = {drafts, expected};
    best_speed = speed;
  }
  return best;
}

}  // namespace ringside
