#include "batch.h"

#include <algorithm>
#include <chrono>

namespace ringside {

Status Batch::add(SessionState& state, const GenerateOptions& options, const CancelFlag& cancel,
                  const std::function<bool(int32_t id)>& sink) {
  members_.push_back(std::make_unique<Decoding>(state, options, cancel, sink));
  return members_.back()->begin();
}

Status Batch::run() {
  std::vector<Decoding*> waiting;  // for a pass, who has waited longest first
  for (const std::unique_ptr<Decoding>& member : members_) RS_CHECK(go_on(*member, waiting));
  for (;;) {
    for (Decoding* member : waiting) {
      if (member->is_cancelled()) RS_CHECK(member->cancel());
    }
    std::erase_if(waiting, [](const Decoding* member) { return member->has_ended(); });
    if (waiting.empty()) return Unit{};
    const auto served_end = waiting.begin() + static_cast<int64_t>(std::min<size_t>(waiting.size(), RS_STEP_ROWS));
    const std::vector<Decoding*> served(waiting.begin(), served_end);
    RS_TRY(const bool passed, pass(served));
    if (!passed) continue;
    waiting.erase(waiting.begin(), served_end);
    for (Decoding* member : served) RS_CHECK(go_on(*member, waiting));
  }
}

Status Batch::go_on(Decoding& member, std::vector<Decoding*>& waiting) {
  RS_CHECK(member.run());
  if (!member.has_ended()) waiting.push_back(&member);
  return Unit{};
}

// Lets each of `served` take a step. False: stopped, because one of them was cancelled.
Result<bool> Batch::pass(Served served) {
  const int64_t rows = plan(served);
  provide(served, rows);
  for (const std::unique_ptr<Decoding>& member : members_) member->forget_rows();
  rs_error error{};
  const bool passed = step(served, rows, error);
  int64_t first_row = 0;
  for (size_t i = 0; i < served.size(); ++i) {
    if (!passed) {
      RS_CHECK(served[i]->withdraw());
    } else if (chosen_[i] != nullptr) {
      served[i]->passed(chosen_[i], first_row);
    } else {
      served[i]->passed(steps_[i].logits);
    }
    first_row += steps_[i].count;
  }
  if (!passed && to_error(error).kind != ErrorKind::kCancelled) return to_error(error);
  return passed;
}

// Room for what each step is to give: ids, or logits.
void Batch::provide(Served served, int64_t rows) {
  const auto vocab = static_cast<size_t>(model_.config().vocab_rows);
  ids_.resize(std::max(ids_.size(), static_cast<size_t>(rows)));
  chosen_.assign(served.size(), nullptr);
  size_t logits_rows = 0;
  for (size_t i = 0; i < served.size(); ++i) {
    if (!served[i]->wants_ids()) logits_rows += static_cast<size_t>(steps_[i].count);
  }
  logits_.resize(std::max(logits_.size(), logits_rows * vocab));
  float* logits = logits_.data();
  int32_t* ids = ids_.data();
  for (size_t i = 0; i < served.size(); ++i) {
    if (served[i]->wants_ids()) {
      steps_[i].want = RS_LOGITS_NONE;
      chosen_[i] = ids;
    } else {
      steps_[i].logits = logits;
      logits += static_cast<size_t>(steps_[i].count) * vocab;
    }
    ids += steps_[i].count;
  }
}

// Drafts share the rows that are left when each member has one. Returns the rows of the pass.
int64_t Batch::plan(Served served) {
  auto rows = static_cast<int64_t>(served.size());
  auto tokens = static_cast<double>(rows);
  const int64_t share = RS_STEP_ROWS / rows;
  steps_.clear();
  for (Decoding* member : served) {
    const std::span<const int32_t> wanted = member->plan(model_.pass_costs(), share, rows, tokens);
    steps_.push_back({.session = member->state().handle(),
                      .tokens = wanted.data(),
                      .count = static_cast<int64_t>(wanted.size()),
                      .want = wanted.size() == 1 ? RS_LOGITS_LAST : RS_LOGITS_ALL,
                      .logits = nullptr});
  }
  return rows;
}

bool Batch::step(Served served, int64_t rows, rs_error& error) {
  using Clock = std::chrono::steady_clock;
  const auto asked = [](void* context) -> int32_t {
    const auto cancelled = [](const Decoding* member) { return member->is_cancelled(); };
    return std::ranges::any_of(*static_cast<Served*>(context), cancelled) ? 1 : 0;
  };
  const rs_poll poll{&served, asked, nullptr};
  const rs_backend& backend = model_.backend();
  const auto count = static_cast<int64_t>(steps_.size());
  const Clock::time_point start = Clock::now();
  const int32_t code = backend.step_likeliest == nullptr
                           ? backend.step(model_.handle(), steps_.data(), count, &poll, &error)
                           : backend.step_likeliest(model_.handle(), steps_.data(), chosen_.data(), count,
                                                    model_.info().vocab, &poll, &error);
  if (code != 0) return false;
  model_.pass_costs().add(rows, std::chrono::duration<double>(Clock::now() - start).count());
  return true;
}

}  // namespace ringside
