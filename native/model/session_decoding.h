// Owns: one generation of one session, taken apart at the passes over the weights, so that several sessions can share a
// pass (batch.h): it chooses tokens from the logits at hand until it needs more.
// Must never: give out other tokens with drafts than without: a draft is only a row whose logits are there early.
#pragma once

#include <array>

#include "session_state.h"

namespace ringside {

class Decoding {
 public:
  // begin() must follow. All arguments live as long as this.
  Decoding(SessionState& state, const GenerateOptions& options, const CancelFlag& cancel,
           const std::function<bool(int32_t id)>& sink)
      : state_(state), options_(options), cancel_(cancel), sink_(sink) {}
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;
  // Whatever ended it, an exception of the sink included, the backend holds the session's tokens and no draft.
  ~Decoding() {
    if (has_begun_) (void)settle();
  }

  Status begin();
  // Gives out tokens until the next one's logits need a pass, or it has ended.
  Status run();
  bool has_ended() const { return has_ended_; }
  bool is_cancelled() const { return cancel_.cancelled(); }
  // Ends it before the pass that run() asked for. The token given out last is then not in the session.
  Status cancel() { return end(StopReason::kCancelled); }

  // What it wants of the pass: the token given out last, then as many drafts as pay, `most` rows at most. `rows` and
  // `tokens` are those of the pass with one row of each member, see plan_drafts(); they grow by what is drafted.
  std::span<const int32_t> plan(const PassCosts& costs, int64_t most, int64_t& rows, double& tokens);
  // Whether ids are all it wants of the pass, and the backend chooses the ones that sample() would.
  bool wants_ids() const;
  // The pass is done. `logits` are those of its rows, and stay there until the next pass or the end.
  void passed(const float* logits);
  // The same where ids were wanted: `ids` follow the pass's rows, which are the backend's from `first_row` on.
  void passed(const int32_t* ids, int64_t first_row);
  // The pass did not happen. Another may be planned.
  Status withdraw() { return settle(); }
  // A pass begins: the backend will have other rows' logits.
  void forget_rows() { backend_row_ = -1; }

  SessionState& state() { return state_; }
  const GenerateResult& result() const { return result_; }

 private:
  int32_t choose();
  bool is_stop(int32_t id) const;
  bool is_greedy() const;
  int64_t most_drafts() const;
  Status end(StopReason reason);
  Status settle();

  SessionState& state_;
  const GenerateOptions& options_;
  const CancelFlag& cancel_;
  const std::function<bool(int32_t id)>& sink_;
  GenerateResult result_;
  bool has_ended_ = false;
  std::array<int32_t, RS_STEP_ROWS> rows_{};  // of the pass: a chosen token and drafts
  int64_t row_count_ = 0;
  int64_t used_ = 0;  // of those rows, that the session holds
  bool has_begun_ = false;
  // What follows the session's last token: its logits; else the likeliest id, and which row of the backend's last call
  // has the logits, -1: none any more.
  const float* row_ = nullptr;
  const int32_t* id_ = nullptr;
  int64_t backend_row_ = -1;
  std::vector<float> choice_;  // the sampler's copy
};

}  // namespace ringside
