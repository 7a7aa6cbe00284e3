// Owns: joining generated tokens into batches that leave at most 30 ms apart, with text that never ends inside a
// character.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../engine.h"

namespace ringside::binding {

class TokenBatches {
 public:
  using Send = std::function<void(std::vector<int32_t> ids, std::string text)>;
  // `tokenizer` may be nullptr: then there is no text.
  TokenBatches(const Tokenizer* tokenizer, Send send) : tokenizer_(tokenizer), send_(std::move(send)) {}

  void add(int32_t id) {
    const Clock::time_point now = Clock::now();
    const Clock::duration step = now - last_token_;
    last_token_ = now;
    ids_.push_back(id);
    if (tokenizer_ != nullptr) text_ += utf8_.push(tokenizer_->bytes(id));
    // Waits for another token only when that one, as slow as this one was, would still be in time.
    if (!sent_first_ || now - last_sent_ + step > kLongestWait) send(now);
  }

  void finish() {
    text_ += utf8_.finish();
    if (!ids_.empty() || !text_.empty()) send(Clock::now());
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration kLongestWait = std::chrono::milliseconds(30);

  void send(Clock::time_point now) {
    sent_first_ = true;
    last_sent_ = now;
    send_(std::exchange(ids_, {}), std::exchange(text_, {}));
  }

  const Tokenizer* tokenizer_;
  Send send_;
  Utf8Stream utf8_;
  std::vector<int32_t> ids_;
  std::string text_;
  Clock::time_point last_token_ = Clock::now();
  Clock::time_point last_sent_{};
  bool sent_first_ = false;
};

}  // namespace ringside::binding
