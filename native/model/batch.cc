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
  const auto vocab = static_cast<size_t>(model_.config().vocab_rows);
  logits_.resize(std::max(logits_.size(), static_cast<size_t>(rows) * vocab));
  float* logits = logits_.data();
  for (rs_step& step : steps_) {
    step.logits = logits;
    logits += static_cast<size_t>(step.count) * vocab;
  }
  rs_error error{};
  const bool passed = step(served, rows, error);
  for (size_t i = 0; i < served.size(); ++i) {
    if (passed) {
      served[i]->passed(steps_[i].logits);
    } else {
      RS_CHECK(served[i]->withdraw());
    }
  }
  if (!passed && to_error(error).kind != ErrorKind::kCancelled) return to_error(error);
  return passed;
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
  const Clock::time_point start = Clock::now();
  if (model_.backend().step(model_.handle(), steps_.data(), static_cast<int64_t>(steps_.size()), &poll, &error) != 0) {
    return false;
  }
  model_.pass_costs().add(rows, std::chrono::duration<double>(Clock::now() - start).count());
  return true;
}

}  // namespace ringside
