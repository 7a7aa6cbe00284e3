#include "draft_sources.h"

namespace ringside {

void DraftSources::observe(std::span<const int32_t> tokens, int32_t id) {
  const PromptLookup::Match& own = own_.match();
  if (own.length > 0) own_hits_.add(own.length, tokens[static_cast<size_t>(own.next)] == id);
  if (written_match_.length > 0) written_hits_.add(written_match_.length, written_.token_after(written_match_) == id);
}

void DraftSources::propose(std::span<const int32_t> tokens, std::span<int32_t> draft) const {
  if (from_written()) {
    written_.propose(written_match_, draft);
  } else {
    PromptLookup::propose(tokens, own_.match().next, draft);
  }
}

}  // namespace ringside
