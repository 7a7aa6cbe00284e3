// Owns: what the model has written lately, in whatever session: a second place to find drafts in, because a model
// repeats its own turns of phrase from one answer to the next. Must never: fail, or grow beyond its limit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "prompt_lookup.h"

namespace ringside {

class WrittenText {
 public:
  // Of one generation, with the few tokens before it, so that its beginning is found as well. Without memory for them
  // they are not kept.
  void add(std::span<const int32_t> tokens) noexcept;
  // Where the last of `tokens` stand here. `next` counts all tokens ever added, so that it never means another place.
  PromptLookup::Match find(std::span<const int32_t> tokens) const;
  // What followed a match, -1 when that is forgotten.
  int32_t token_after(const PromptLookup::Match& match) const;
  // Fills `draft` with what followed a match that was found since the last add().
  void propose(const PromptLookup::Match& match, std::span<int32_t> draft) const;

 private:
  std::vector<int32_t> tokens_;
  PromptLookup index_;  // of tokens_
  int64_t forgotten_ = 0;
};

}  // namespace ringside
