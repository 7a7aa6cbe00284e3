#include "session_state.h"

#include <algorithm>
#include <utility>

namespace ringside {
namespace {

// What a running call of the backend asks and tells.
struct Poll {
  const CancelFlag* cancel;
  const std::function<void(int64_t)>* advanced;

  rs_poll table() {
    const auto told = [](void* context, int64_t position) { (*static_cast<Poll*>(context)->advanced)(position); };
    const auto asked = [](void* context) -> int32_t {
      return static_cast<Poll*>(context)->cancel->cancelled() ? 1 : 0;
    };
    return {this, asked, *advanced ? +told : nullptr};
  }
};

}  // namespace

int64_t SessionState::bytes() const {
  return backend_.session_bytes(handle_) + static_cast<int64_t>(tokens_.capacity() * sizeof(int32_t)) +
         static_cast<int64_t>(logits_.capacity() * sizeof(float)) + lookup_.bytes();
}

Status SessionState::open(const SessionSnapshot* snapshot) {
  std::vector<int32_t> tokens;
  if (snapshot != nullptr) tokens.assign(snapshot->tokens().begin(), snapshot->tokens().end());
  logits_.resize(static_cast<size_t>(model_->config().vocab_rows));
  rs_error error{};
  rs_session* handle = nullptr;
  const int32_t outcome = snapshot != nullptr ? backend_.restore(model_->handle(), snapshot->handle(), &handle, &error)
                                              : backend_.open(model_->handle(), &handle, &error);
  if (outcome != 0) return to_error(error);
  close();
  handle_ = handle;
  // What the index knows of tokens that stay is kept.
  const auto same = std::ranges::mismatch(tokens_, tokens).in1 - tokens_.begin();
  lookup_.cut(tokens_, same);
  tokens_.swap(tokens);
  has_logits_ = false;
  return Unit{};
}

void SessionState::close() {
  if (handle_ != nullptr) backend_.close(std::exchange(handle_, nullptr));
}

Status SessionState::cut(size_t keep) {
  if (keep == tokens_.size()) return Unit{};
  has_logits_ = false;
  rs_error error{};
  if (backend_.accept(handle_, static_cast<int64_t>(keep), &error) != 0) return to_error(error);
  keep_tokens(keep);
  return Unit{};
}

Status SessionState::extend(std::span<const int32_t> tokens, std::span<float> all, const CancelFlag& cancel,
                            const std::function<void(int64_t)>& advanced) {
  const auto held = static_cast<size_t>(position());
  const auto read = static_cast<size_t>(read_position());
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  has_logits_ = false;
  if (read < held) {
    RS_CHECK(go_back(read));
    // Generated tokens are few, and read again they leave the state that any other way to them leaves.
    RS_CHECK(read_on(std::span(tokens_).subspan(read, held - read), RS_LOGITS_NONE, nullptr, cancel, advanced));
  }
  const rs_logits want = all.empty() ? RS_LOGITS_LAST : RS_LOGITS_ALL;
  RS_CHECK(
      read_on(std::span(tokens_).subspan(held), want, all.empty() ? logits_.data() : all.data(), cancel, advanced));
  if (!all.empty()) std::ranges::copy(all.last(logits_.size()), logits_.begin());
  has_logits_ = true;
  return Unit{};
}

// The backend alone: the tokens stay.
Status SessionState::go_back(size_t keep) {
  rs_error error{};
  if (backend_.accept(handle_, static_cast<int64_t>(keep), &error) == 0) return Unit{};
  keep_tokens(static_cast<size_t>(backend_.position(handle_)));
  return to_error(error);
}

// Lets the backend read tokens that are in the list already; of those that it does not get to the list is rid.
Status SessionState::read_on(std::span<const int32_t> tokens, rs_logits want, float* logits, const CancelFlag& cancel,
                             const std::function<void(int64_t)>& advanced) {
  Poll poll{&cancel, &advanced};
  const rs_poll table = poll.table();
  rs_error error{};
  if (backend_.extend(handle_, tokens.data(), static_cast<int64_t>(tokens.size()), want, logits, &table, &error) == 0) {
    return Unit{};
  }
  keep_tokens(static_cast<size_t>(backend_.position(handle_)));
  return to_error(error);
}

void SessionState::keep_tokens(size_t count) {
  lookup_.cut(tokens_, static_cast<int64_t>(std::min(count, tokens_.size())));
  tokens_.resize(count);
}

void SessionState::reserve(int64_t more) {
  const size_t wanted = tokens_.size() + static_cast<size_t>(more);
  if (tokens_.capacity() < wanted) tokens_.reserve(std::max(wanted, tokens_.capacity() * 3 / 2));
}

Status SessionState::fetch_logits(int64_t row) {
  rs_error error{};
  if (backend_.likeliest_logits(model_->handle(), row, logits_.data(), &error) == 0) return Unit{};
  return to_error(error);
}

Status SessionState::settle(const float* logits) {
  has_logits_ = logits != nullptr;
  if (has_logits_ && logits != logits_.data()) std::copy_n(logits, logits_.size(), logits_.begin());
  const int64_t reached = backend_.position(handle_);
  if (reached < position()) {
    lookup_.cut(tokens_, reached);
    tokens_.resize(static_cast<size_t>(reached));
  }
  rs_error error{};
  if (reached > position() && backend_.accept(handle_, position(), &error) != 0) return to_error(error);
  return Unit{};
}

}  // namespace ringside
