// Owns: what the index over a session's tokens promises: it finds the longest earlier occurrence, taking tokens off the
// end undoes it, and it is small; and that the number of drafts follows what they bring and what they cost.
#include "model/prompt_lookup.h"

#include <algorithm>
#include <vector>

#include "check.h"
#include "model/draft_plan.h"
#include "random_model.h"

namespace {

using namespace ringside;
using Ids = std::vector<int32_t>;

constexpr int32_t kLongest = 64;

std::span<const int32_t> first(const Ids& ids, int64_t count) {
  return std::span(ids).first(static_cast<size_t>(count));
}

int32_t common_suffix(std::span<const int32_t> tokens, int64_t end) {
  const auto size = static_cast<int64_t>(tokens.size());
  int32_t length = 0;
  while (length < end && length < kLongest &&
         tokens[static_cast<size_t>(end - 1 - length)] == tokens[static_cast<size_t>(size - 1 - length)]) {
    ++length;
  }
  return length;
}

int32_t longest_by_search(std::span<const int32_t> tokens) {
  int32_t longest = 0;
  for (int64_t end = 1; end < static_cast<int64_t>(tokens.size()); ++end) {
    longest = std::max(longest, common_suffix(tokens, end));
  }
  return longest >= 2 ? longest : 0;  // one token alone says nothing
}

// The match is where it says, and as long as the longest there is.
void check_match(const PromptLookup& lookup, std::span<const int32_t> tokens) {
  const PromptLookup::Match match = lookup.match();
  CHECK_EQ(match.length, longest_by_search(tokens));
  if (match.length == 0) return;
  CHECK(match.next > 0 && match.next < static_cast<int32_t>(tokens.size()));
  CHECK_EQ(common_suffix(tokens, match.next), match.length);
}

// Text that repeats itself in pieces, as a conversation about files does. So many different tokens that none stands in
// more places than are compared.
Ids repeating(uint64_t seed, int64_t count) {
  random_model::Random random(seed);
  Ids ids;
  while (static_cast<int64_t>(ids.size()) < count) {
    const auto size = static_cast<int64_t>(ids.size());
    const int64_t length = 1 + random.below(40);
    const bool is_new = size < 50 || random.below(3) == 0;
    const int64_t from = is_new ? 0 : random.below(size);
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(is_new ? static_cast<int32_t>(random.below(2000)) : ids[static_cast<size_t>(from + i)]);
    }
  }
  ids.resize(static_cast<size_t>(count));
  return ids;
}

TEST("lookup: finds the longest earlier occurrence, token for token") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Ids ids = repeating(seed, 700);
    PromptLookup lookup;
    for (int64_t count = 1; count <= 700; ++count) {
      lookup.extend(first(ids, count));
      CHECK_EQ(lookup.held(), count);
      check_match(lookup, first(ids, count));
    }
  }
}

TEST("lookup: a whole prompt at once gives the match of its last token") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Ids ids = repeating(seed, 300 + static_cast<int64_t>(seed));
    PromptLookup lookup;
    lookup.extend(first(ids, 250));
    lookup.extend(ids);
    check_match(lookup, ids);
  }
}

TEST("lookup: taking tokens off the end leaves the index as if they had never been there") {
  random_model::Random random(7);
  const Ids line = repeating(1, 600);
  PromptLookup lookup;
  lookup.extend(line);
  for (int round = 0; round < 100; ++round) {
    const int64_t keep = random.below(600);
    lookup.cut(line, keep);
    CHECK_EQ(lookup.held(), keep);
    Ids other(line.begin(), line.begin() + keep);
    for (int64_t i = random.below(30); i >= 0; --i) other.push_back(static_cast<int32_t>(random.below(2000)));
    lookup.extend(other);
    check_match(lookup, other);
    lookup.cut(other, keep);
    lookup.extend(line);
    check_match(lookup, line);
  }
}

TEST("lookup: a token that stands everywhere still gives a true match") {
  Ids ids(5000, 3);
  PromptLookup lookup;
  lookup.extend(ids);
  CHECK_EQ(lookup.match().length, kLongest);
  ids.push_back(4);
  lookup.extend(ids);
  CHECK_EQ(lookup.match().length, 0);
  for (const int32_t id : {3, 3, 3}) ids.push_back(id);
  lookup.extend(ids);
  CHECK(lookup.match().length >= 2 && common_suffix(ids, lookup.match().next) >= lookup.match().length);
}

TEST("lookup: the draft is what followed, and a repetition goes on repeating") {
  const Ids ids = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3};
  PromptLookup lookup;
  lookup.extend(ids);
  Ids draft(4);
  lookup.propose(ids, draft);
  CHECK(draft == (Ids{4, 5, 6, 7}));
  const Ids loop = {9, 5, 6, 5, 6, 5, 6};
  PromptLookup looping;
  looping.extend(loop);
  Ids more(7);
  looping.propose(loop, more);
  CHECK(more == (Ids{5, 6, 5, 6, 5, 6, 5}));
}

TEST("lookup: few bytes a token") {
  constexpr int64_t kTokens = 128 * 1024;
  for (const int64_t extra : {int64_t{0}, int64_t{1}, int64_t{40'000}}) {
    const Ids ids = random_model::tokens(3, kTokens + extra, 150'000);
    PromptLookup lookup;
    // A prompt, then an answer token by token.
    lookup.extend(first(ids, kTokens - 2000));
    for (int64_t count = kTokens - 1999; count <= kTokens + std::min<int64_t>(extra, 2000); ++count) {
      lookup.extend(first(ids, count));
    }
    lookup.extend(ids);
    CHECK(lookup.bytes() <= 32 * (kTokens + extra));
  }
}

// A pass whose cost is the same whatever its rows, and one where each row costs as much as the first.
int64_t drafts_when(double seconds_per_row, const LookupHits& hits, int32_t match_length, int64_t most = 60) {
  PassCosts costs;
  for (int round = 0; round < 20; ++round) {
    for (int64_t rows = 1; rows <= 64; rows *= 2)
      costs.add(rows, 1.0 + seconds_per_row * static_cast<double>(rows - 1));
  }
  return plan_drafts(hits, costs, match_length, 1, 1.0, most).drafts;
}

TEST("plan: as many drafts as pay") {
  LookupHits right, wrong;
  for (int32_t length = 1; length <= 64; ++length) {
    for (int i = 0; i < 200; ++i) {
      right.add(length, true);
      wrong.add(length, false);
    }
  }
  CHECK_EQ(drafts_when(0.0, right, 20), 60);
  CHECK_EQ(drafts_when(0.0, right, 0), 0);  // nothing to try
  CHECK_EQ(drafts_when(0.0, right, 20, 0), 0);
  CHECK(drafts_when(0.05, right, 20) > 20);
  CHECK_EQ(drafts_when(1.2, right, 20), 0);
  CHECK_EQ(drafts_when(0.05, wrong, 20), 0);
  // One in two right: a few, where they cost little.
  LookupHits half;
  for (int i = 0; i < 400; ++i) half.add(4, i % 2 == 0);
  CHECK(std::abs(half.rate(4) - 0.5) < 0.05);
  const int64_t few = drafts_when(0.1, half, 4, 60);
  CHECK(few >= 1 && few <= 6);
}

TEST("plan: rows that another member drafts make one's own dearer") {
  LookupHits hits;
  PassCosts costs;
  for (int64_t rows = 1; rows <= 64; rows *= 2) costs.add(rows, rows <= 16 ? 1.0 : static_cast<double>(rows));
  CHECK(plan_drafts(hits, costs, 40, 1, 1.0, 60).drafts >= 10);
  CHECK_EQ(plan_drafts(hits, costs, 40, 16, 16.0, 40).drafts, 0);
}

TEST("plan: what was too dear once is tried again") {
  LookupHits hits;
  PassCosts costs;
  costs.add(1, 1.0);
  CHECK(plan_drafts(hits, costs, 40, 1, 1.0, 31).drafts > 0);  // nothing is known of it
  for (int64_t rows = 2; rows <= 64; rows *= 2) costs.add(rows, 100.0);
  int passes = 0;
  while (plan_drafts(hits, costs, 40, 1, 1.0, 31).drafts == 0 && passes < 10'000) {
    costs.add(1, 1.0);
    ++passes;
  }
  CHECK(passes > 50 && passes < 5'000);
  for (int64_t rows = 2; rows <= 64; rows *= 2) {
    for (int i = 0; i < 10; ++i) costs.add(rows, 1.1);
  }
  CHECK(plan_drafts(hits, costs, 40, 1, 1.0, 31).drafts > 10);
}

}  // namespace
