// Owns: where a session's drafts come from: its own tokens, which an answer quotes, or what the model wrote before,
// whose phrases the next reasoning repeats; whichever has been right more often after a match as long. Must never:
// decide how many drafts are worth a pass (draft_plan.h).
#pragma once

#include <cstdint>
#include <span>

#include "draft_plan.h"
#include "prompt_lookup.h"
#include "written_text.h"

namespace ringside {

class DraftSources {
 public:
  explicit DraftSources(const WrittenText& written) : written_(written) {}

  // `tokens` begins with the tokens already held. Throws std::bad_alloc; then nothing has changed.
  void extend(std::span<const int32_t> tokens) {
    own_.extend(tokens);
    written_match_ = written_.find(tokens);
  }
  // Forgets all but the first `keep` of `tokens`, which are the tokens held or more.
  void cut(std::span<const int32_t> tokens, int64_t keep) {
    own_.cut(tokens, keep);
    written_match_ = {};
  }

  // `id` came after `tokens`, which are those held: counts what each source would have said.
  void observe(std::span<const int32_t> tokens, int32_t id);
  // Of the source that is to be used, and how often it is right. 0: there is none.
  int32_t match_length() const { return from_written() ? written_match_.length : own_.match().length; }
  const LookupHits& hits() const { return from_written() ? written_hits_ : own_hits_; }
  // Fills `draft` from that source, which must be there; `tokens` are those held.
  void propose(std::span<const int32_t> tokens, std::span<int32_t> draft) const;

  const PromptLookup& own() const { return own_; }
  int64_t bytes() const { return own_.bytes(); }

 private:
  static double rate(const LookupHits& hits, const PromptLookup::Match& match) {
    return match.length > 0 ? hits.rate(match.length) : 0.0;
  }
  bool from_written() const { return rate(written_hits_, written_match_) > rate(own_hits_, own_.match()); }

  const WrittenText& written_;
  PromptLookup own_;  // of a beginning of the tokens
  LookupHits own_hits_;
  PromptLookup::Match written_match_;
  LookupHits written_hits_;
};

}  // namespace ringside
