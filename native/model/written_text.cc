#include "written_text.h"

#include <algorithm>
#include <new>

namespace ringside {
namespace {

// Some tens of answers with their reasoning; half a megabyte with the index.
constexpr size_t kMostTokens = 32768;

}  // namespace

void WrittenText::add(std::span<const int32_t> tokens) noexcept {
  try {
    const auto latest = tokens.last(std::min(tokens.size(), kMostTokens / 2));
    if (tokens_.size() + latest.size() > kMostTokens) {
      // Half goes at once: a new index for each answer would cost more than what it forgets.
      const auto keep = std::span<const int32_t>(tokens_).last(kMostTokens / 2);
      std::vector<int32_t> kept(keep.begin(), keep.end());
      PromptLookup index;
      index.extend(kept);
      forgotten_ += static_cast<int64_t>(tokens_.size() - kept.size());
      tokens_.swap(kept);
      std::swap(index_, index);
    }
    tokens_.insert(tokens_.end(), latest.begin(), latest.end());
    index_.extend(tokens_);
  } catch (const std::bad_alloc&) {
    tokens_.resize(static_cast<size_t>(index_.held()));
  }
}

PromptLookup::Match WrittenText::find(std::span<const int32_t> tokens) const {
  PromptLookup::Match match = index_.find(tokens_, tokens);
  if (match.length > 0) match.next += forgotten_;
  return match;
}

int32_t WrittenText::token_after(const PromptLookup::Match& match) const {
  const int64_t place = match.next - forgotten_;
  return place < 0 ? -1 : tokens_[static_cast<size_t>(place)];
}

void WrittenText::propose(const PromptLookup::Match& match, std::span<int32_t> draft) const {
  PromptLookup::propose(tokens_, match.next - forgotten_, draft);
}

}  // namespace ringside
