// Owns: cutting the steps of sessions into the passes of the step path, and what each session becomes after them.
#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "cuda/forward.h"

namespace ringside::cuda {
namespace {

// A session while its step is under way. It moves only when all steps are through.
struct Stepping {
  const rs_step* step;
  Session* session;
  LinearState state;  // the session's own until a chunk ends
  int64_t position;
  int64_t done = 0;

  int64_t left() const { return step->count - done; }
  bool wants(int64_t row) const {
    return step->want == RS_LOGITS_ALL || (step->want == RS_LOGITS_LAST && row == step->count - 1);
  }
  float* logits_of(int64_t row) const {
    const int64_t place = step->want == RS_LOGITS_ALL ? row : 0;
    return step->logits + place * session->pools->model.config.vocab_rows;
  }
  SessionView view() const {
    SessionView view = session->view(state);
    view.position = position;
    return view;
  }
};

// What a pass takes of a step: rows of one chunk alone, so that no row of an open chunk is overwritten that the session
// needs if a later pass fails.
struct Share {
  Stepping* stepping;
  int64_t first_row;  // of the pass
  int64_t rows;
  Piece next_s;  // where a chunk ends
};

class Pass {
 public:
  explicit Pass(Loaded& loaded) : loaded_(loaded) {}

  // False: there is no room in the pass.
  Result<bool> add(Stepping& stepping) {
    const int64_t in_chunk = kChunkTokens - stepping.position % kChunkTokens;
    const int64_t rows = std::min({stepping.left(), in_chunk, kStepRows - rows_});
    if (rows == 0) return false;
    Share share{&stepping, rows_, rows, nullptr};
    if (rows == in_chunk) {
      RS_TRY(share.next_s, loaded_.pools->states.take(loaded_.stream.get()));
    }
    for (int64_t i = 0; i < rows; ++i) {
      tokens_[static_cast<size_t>(rows_ + i)] = stepping.step->tokens[stepping.done + i];
      wanted_[static_cast<size_t>(rows_ + i)] = stepping.wants(stepping.done + i) ? 1 : 0;
    }
    rows_ += rows;
    shares_.push_back(std::move(share));
    return true;
  }

  Status run() {
    std::vector<StepPart> parts;
    for (const Share& share : shares_) {
      parts.push_back({share.stepping->view(), static_cast<int32_t>(share.first_row), static_cast<int32_t>(share.rows),
                       reinterpret_cast<float*>(share.next_s.get())});
    }
    const Workspace& work = loaded_.workspace;
    RS_CHECK(run_step(*loaded_.step_path, parts.data(), static_cast<int64_t>(parts.size()), tokens_.data(),
                      wanted_.data(), work.logits, loaded_.stream.get()));
    RS_CHECK(copy_wanted());
    for (const Share& share : shares_) RS_CHECK(advance(share));
    return Unit{};
  }

 private:
  // Rows that are wanted and lie side by side on both sides, together.
  Status copy_wanted() const {
    const int64_t vocab = loaded_.model().config.vocab_rows;
    for (const Share& share : shares_) {
      const Stepping& stepping = *share.stepping;
      int64_t first = 0;
      while (first < share.rows && !stepping.wants(stepping.done + first)) ++first;
      if (first == share.rows) continue;
      RS_CHECK(copy_logits(loaded_, loaded_.workspace.logits + (share.first_row + first) * vocab, share.rows - first,
                           stepping.logits_of(stepping.done + first)));
    }
    return Unit{};
  }

  Status advance(const Share& share) const {
    Stepping& stepping = *share.stepping;
    stepping.position += share.rows;
    stepping.done += share.rows;
    if (stepping.position % kChunkTokens != 0) return Unit{};
    // The open rows of the chunk that ended stay as they are until the step is through.
    stepping.state.s = share.next_s;
    RS_TRY(stepping.state.open_rows, loaded_.pools->open_rows.take(loaded_.stream.get()));
    return Unit{};
  }

  Loaded& loaded_;
  std::vector<Share> shares_;
  std::array<int32_t, kStepRows> tokens_{};
  std::array<uint8_t, kStepRows> wanted_{};
  int64_t rows_ = 0;
};

}  // namespace

Status run_steps(Loaded& loaded, const rs_step* steps, int64_t count, const rs_poll* poll) {
  std::vector<Stepping> all;
  int64_t left = 0;
  for (const rs_step& step : std::span(steps, static_cast<size_t>(count))) {
    auto* const session = reinterpret_cast<Session*>(step.session);
    RS_CHECK(session->prepare_pages(step.count, loaded.stream));
    all.push_back({&step, session, session->state, session->position});
    left += step.count;
  }
  while (left > 0) {
    if (poll != nullptr && poll->cancelled != nullptr && poll->cancelled(poll->context) != 0) {
      return Error{ErrorKind::kCancelled, "step", "", ""};
    }
    Pass pass(loaded);
    for (Stepping& stepping : all) {
      if (stepping.left() == 0) continue;
      RS_TRY(const bool added, pass.add(stepping));
      if (!added) break;
    }
    RS_CHECK(pass.run());
    left = 0;
    for (const Stepping& stepping : all) left += stepping.left();
  }
  RS_CHECK(loaded.stream.wait());
  for (Stepping& stepping : all) {
    stepping.session->state = std::move(stepping.state);
    stepping.session->position = stepping.position;
  }
  return Unit{};
}

}  // namespace ringside::cuda
