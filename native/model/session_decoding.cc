#include "session_decoding.h"

#include <algorithm>
#include <string>

namespace ringside {
namespace {

constexpr size_t kPenaltyTokens = 256;

}  // namespace

Status Decoding::begin() {
  RS_CHECK(check_sampler_options(options_.sampler));
  if (options_.max_tokens < 0) {
    return Error{ErrorKind::kArgumentInvalid, "max_tokens", ">= 0", std::to_string(options_.max_tokens)};
  }
  if (!state_.has_logits()) return Error{ErrorKind::kStateInvalid, "session", "a prompt that was read", "none"};
  if (options_.prompt_lookup) state_.index();
  row_ = state_.logits().data();
  has_begun_ = true;
  return Unit{};
}

Status Decoding::run() {
  while (result_.tokens < options_.max_tokens) {
    if (cancel_.cancelled()) return end(StopReason::kCancelled);
    if (state_.position() >= state_.model()->config().context_tokens) return end(StopReason::kContextFull);
    const int32_t id = choose();
    if (id < 0) return Error{ErrorKind::kInternal, "logits", "a finite value", "none"};
    if (is_stop(id)) return end(StopReason::kStopToken);
    result_.tokens += 1;
    // Asked here and not only in the pass, so that a draft that was right ends no further on than a token by itself.
    if (!sink_(id) || cancel_.cancelled()) return end(StopReason::kCancelled);
    // Fed even when it is the last one: the session then holds all that was generated and can go on.
    if (used_ == row_count_ || rows_[static_cast<size_t>(used_)] != id) {
      RS_CHECK(settle());
      rows_[0] = id;
      return Unit{};
    }
    result_.accepted += 1;
    used_ += 1;
    if (row_ != nullptr) row_ += state_.logits().size();
    if (id_ != nullptr) ++id_;
    if (backend_row_ >= 0) ++backend_row_;
    state_.push(id);
    if (options_.prompt_lookup) state_.index();
  }
  return end(StopReason::kTokenLimit);
}

// The model's padding rows have no token: they are left out of the choice. The logits stay as they are for a second
// call.
int32_t Decoding::choose() {
  const std::span<const int32_t> tokens = state_.tokens();
  const SamplerOptions& sampler = options_.sampler;
  int32_t id = -1;
  if (id_ != nullptr) {
    id = *id_;
  } else {
    const std::span logits(row_, static_cast<size_t>(state_.model()->info().vocab));
    if (is_greedy()) {
      id = likeliest(logits);
    } else {
      choice_.assign(logits.begin(), logits.end());
      id = sample(choice_, tokens.last(std::min(tokens.size(), kPenaltyTokens)), nullptr, state_.position(), sampler);
    }
  }
  const PromptLookup::Match& match = state_.lookup().match();
  if (options_.prompt_lookup && match.length > 0) {
    state_.hits().add(match.length, tokens[static_cast<size_t>(match.next)] == id);
  }
  return id;
}

bool Decoding::is_stop(int32_t id) const {
  const auto holds = [id](const std::vector<int32_t>& list) { return std::ranges::find(list, id) != list.end(); };
  return holds(state_.model()->info().stop_tokens) || holds(options_.stop_tokens);
}

// A chunk is completed by a token that is certain, never by a draft: what is committed cannot be cut off (house 3a).
int64_t Decoding::most_drafts() const {
  const int64_t place = state_.position() % RS_CHUNK_TOKENS;  // of the certain token
  const int64_t in_chunk = place == RS_CHUNK_TOKENS - 1 ? RS_CHUNK_TOKENS - 1 : RS_CHUNK_TOKENS - 2 - place;
  const int64_t in_context = state_.model()->config().context_tokens - state_.position() - 1;
  return std::min({in_chunk, in_context, options_.max_tokens - result_.tokens});
}

std::span<const int32_t> Decoding::plan(const PassCosts& costs, int64_t most, int64_t& rows, double& tokens) {
  const int64_t limit = std::min(most - 1, most_drafts());
  row_count_ = 1;
  state_.reserve(std::max<int64_t>(limit, 0) + 1);
  state_.push(rows_[0]);
  if (options_.prompt_lookup) {
    state_.index();
    const PromptLookup& lookup = state_.lookup();
    const DraftPlan plan = plan_drafts(state_.hits(), costs, lookup.match().length, rows, tokens, limit);
    lookup.propose(state_.tokens(), std::span(rows_).subspan(1, static_cast<size_t>(plan.drafts)));
    row_count_ += plan.drafts;
    rows += plan.drafts;
    tokens = plan.tokens;
  }
  return std::span(rows_).first(static_cast<size_t>(row_count_));
}

bool Decoding::is_greedy() const {
  return options_.sampler.temperature == 0.0f && options_.sampler.repetition_penalty == 1.0f;
}

bool Decoding::wants_ids() const { return state_.backend().step_likeliest != nullptr && is_greedy(); }

void Decoding::passed(const float* logits) {
  result_.drafted += row_count_ - 1;
  row_ = logits;
  id_ = nullptr;
  backend_row_ = -1;
  used_ = 1;
}

void Decoding::passed(const int32_t* ids, int64_t first_row) {
  passed(nullptr);
  id_ = ids;
  backend_row_ = first_row;
}

Status Decoding::end(StopReason reason) {
  result_.reason = reason;
  has_ended_ = true;
  if (backend_row_ >= 0) {
    RS_CHECK(state_.fetch_logits(backend_row_));
    row_ = state_.logits().data();
  }
  return settle();
}

Status Decoding::settle() {
  RS_CHECK(state_.settle(row_));
  if (row_ != nullptr) row_ = state_.logits().data();
  row_count_ = used_ = 0;
  return Unit{};
}

}  // namespace ringside
