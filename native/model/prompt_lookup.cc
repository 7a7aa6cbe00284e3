#include "prompt_lookup.h"

#include <algorithm>
#include <utility>

namespace ringside {
namespace {

constexpr int32_t kNone = -1;
constexpr size_t kFewestBuckets = 256;
// How many places of one n-gram are compared: a common pair of tokens has thousands, and the latest are the likeliest.
constexpr int kMostPlaces = 48;
// A longer match says nothing more about what follows.
constexpr int32_t kLongestMatch = 64;
// A match this long is followed without looking for a better one.
constexpr int32_t kSureMatch = 16;

// How many tokens before `end` (itself included) equal those before the last token of `tokens`.
int32_t common_suffix(std::span<const int32_t> tokens, int64_t end) {
  const int64_t last = static_cast<int64_t>(tokens.size()) - 1;
  const int64_t most = std::min<int64_t>(end + 1, kLongestMatch);
  int32_t length = 0;
  while (length < most && tokens[static_cast<size_t>(end - length)] == tokens[static_cast<size_t>(last - length)]) {
    ++length;
  }
  return length;
}

}  // namespace

// Multiplicative hashing (Knuth 6.4) over the n tokens; the upper bits are the mixed ones.
uint64_t PromptLookup::hash(const Chain& chain, std::span<const int32_t> tokens, int64_t position) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15u;
  uint64_t mixed = 0;
  for (int64_t i = position - chain.gram_tokens + 1; i <= position; ++i) {
    mixed = (mixed ^ static_cast<uint32_t>(tokens[static_cast<size_t>(i)])) * kOdd;
    mixed ^= mixed >> 32;
  }
  return mixed & (chain.latest.size() - 1);
}

void PromptLookup::insert(Chain& chain, std::span<const int32_t> tokens, int64_t position) {
  int32_t before = kNone;
  if (position + 1 >= chain.gram_tokens) {
    before = std::exchange(chain.latest[hash(chain, tokens, position)], static_cast<int32_t>(position));
  }
  chain.earlier.push_back(before);
}

// All memory is taken before anything changes, so that a failure leaves the index as it was. A larger table means
// hashing everything again, which doubling makes rare.
void PromptLookup::reserve(std::span<const int32_t> tokens) {
  for (Chain& chain : chains_) {
    if (chain.earlier.capacity() < tokens.size()) {
      chain.earlier.reserve(std::max(tokens.size(), chain.earlier.capacity() * 3 / 2));
    }
    if (chain.latest.size() >= tokens.size()) continue;
    size_t buckets = std::max(kFewestBuckets, chain.latest.size());
    while (buckets < tokens.size()) buckets *= 2;
    chain.latest = std::vector<int32_t>(buckets, kNone);
    chain.earlier.clear();
    for (int64_t position = 0; position < held_; ++position) insert(chain, tokens, position);
  }
}

void PromptLookup::extend(std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (count == held_) return;
  reserve(tokens);
  const bool followed = count == held_ + 1 && match_.length > 0 &&
                        tokens[static_cast<size_t>(match_.next)] == tokens[static_cast<size_t>(held_)];
  match_ = followed ? Match{match_.next + 1, std::min(match_.length + 1, kLongestMatch)} : Match{};
  // The last token goes in after the search, for it would find itself.
  for (Chain& chain : chains_) {
    for (int64_t position = held_; position + 1 < count; ++position) insert(chain, tokens, position);
  }
  if (match_.length < kSureMatch) {
    const Match found = longest(tokens);
    if (found.length > match_.length) match_ = found;
  }
  for (Chain& chain : chains_) insert(chain, tokens, count - 1);
  held_ = count;
}

PromptLookup::Match PromptLookup::longest(std::span<const int32_t> tokens) const {
  const auto last = static_cast<int64_t>(tokens.size()) - 1;
  Match best;
  for (const Chain& chain : chains_) {
    if (last + 1 < chain.gram_tokens) continue;
    int32_t place = chain.latest[hash(chain, tokens, last)];
    for (int seen = 0; place != kNone && seen < kMostPlaces; ++seen) {
      const int32_t length = common_suffix(tokens, place);
      if (length >= chain.gram_tokens && length > best.length) best = {place + 1, length};
      if (best.length == kLongestMatch) break;
      place = chain.earlier[static_cast<size_t>(place)];
    }
    // The longer n-gram was found, so no shorter one alone can be better.
    if (best.length > 0) break;
  }
  return best;
}

void PromptLookup::cut(std::span<const int32_t> tokens, int64_t keep) {
  if (keep >= held_) return;
  for (Chain& chain : chains_) {
    for (int64_t position = held_ - 1; position >= keep; --position) {
      if (position + 1 >= chain.gram_tokens) chain.latest[hash(chain, tokens, position)] = chain.earlier.back();
      chain.earlier.pop_back();
    }
  }
  held_ = keep;
  match_ = {};
}

void PromptLookup::propose(std::span<const int32_t> tokens, std::span<int32_t> draft) const {
  const size_t left = tokens.size() - static_cast<size_t>(match_.next);
  for (size_t i = 0; i < draft.size(); ++i) {
    draft[i] = i < left ? tokens[static_cast<size_t>(match_.next) + i] : draft[i - left];
  }
}

int64_t PromptLookup::bytes() const {
  size_t values = 0;
  for (const Chain& chain : chains_) values += chain.latest.capacity() + chain.earlier.capacity();
  return static_cast<int64_t>(values * sizeof(int32_t));
}

}  // namespace ringside
