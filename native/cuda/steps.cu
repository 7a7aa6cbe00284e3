// Owns: cutting the steps of sessions into the passes of the step path, and what each session becomes after them.
#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "cuda/forward.h"
#include "cuda/kernels/greedy.h"

namespace ringside::cuda {
namespace {

// A session while its step is under way. It moves only when all steps are through.
struct Stepping {
  const rs_step* step;
  int32_t* chosen;    // [step->count], or nullptr
  int64_t first_row;  // of all steps' rows
  Session* session;
  LinearState state;  // the session's own until a chunk ends
  int64_t position;
  int64_t done = 0;

  int64_t left() const { return step->count - done; }
  bool wants(int64_t row) const {
    return step->want == RS_LOGITS_ALL || (step->want == RS_LOGITS_LAST && row == step->count - 1);
  }
  bool computes(int64_t row) const { return chosen != nullptr || wants(row); }
  float* logits_of(int64_t row) const {
    const int64_t place = step->want == RS_LOGITS_ALL ? row : 0;
    return step->logits + place * session->pools->model.config.vocab_rows;
  }
  // `keys` by the workspace's rows.
  void give_chosen(const uint64_t* keys, const std::vector<int64_t>& row_of) const {
    if (chosen == nullptr) return;
    for (int64_t i = 0; i < step->count; ++i) {
      chosen[i] = likeliest_of(keys[row_of[static_cast<size_t>(first_row + i)]]);
    }
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
  // `logits_row`: where the pass's logits begin in the workspace.
  Pass(Loaded& loaded, int64_t logits_row, int32_t ids, std::vector<int64_t>& row_of)
      : loaded_(loaded), logits_row_(logits_row), ids_(ids), row_of_(row_of) {}
  int64_t rows() const { return rows_; }

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
      wanted_[static_cast<size_t>(rows_ + i)] = stepping.computes(stepping.done + i) ? 1 : 0;
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
    RS_CHECK(run_step(*loaded_.step_path, parts.data(), static_cast<int64_t>(parts.size()), tokens_.data(),
                      wanted_.data(), logits(0), loaded_.stream.get()));
    RS_CHECK(choose());
    RS_CHECK(copy_wanted());
    for (const Share& share : shares_) RS_CHECK(advance(share));
    return Unit{};
  }

 private:
  float* logits(int64_t row) const {
    return loaded_.workspace.logits + (logits_row_ + row) * loaded_.model().config.vocab_rows;
  }

  Status choose() const {
    auto* const keys = reinterpret_cast<uint64_t*>(loaded_.likeliest.keys.data());
    for (const Share& share : shares_) {
      const Stepping& stepping = *share.stepping;
      for (int64_t i = 0; i < share.rows; ++i) {
        const int64_t row = stepping.computes(stepping.done + i) ? logits_row_ + share.first_row + i : -1;
        row_of_[static_cast<size_t>(stepping.first_row + stepping.done + i)] = row;
      }
      if (stepping.chosen == nullptr) continue;
      RS_CHECK(find_likeliest(logits(share.first_row), loaded_.model().config.vocab_rows, share.rows, ids_,
                              keys + logits_row_ + share.first_row, loaded_.stream.get()));
    }
    return Unit{};
  }

  // Rows that are wanted and lie side by side on both sides, together.
  Status copy_wanted() const {
    for (const Share& share : shares_) {
      const Stepping& stepping = *share.stepping;
      int64_t first = 0;
      while (first < share.rows && !stepping.wants(stepping.done + first)) ++first;
      if (first == share.rows) continue;
      RS_CHECK(copy_logits(loaded_, logits(share.first_row + first), share.rows - first,
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
  int64_t logits_row_;
  int32_t ids_;
  std::vector<int64_t>& row_of_;
  std::vector<Share> shares_;
  std::array<int32_t, kStepRows> tokens_{};
  std::array<uint8_t, kStepRows> wanted_{};
  int64_t rows_ = 0;
};

}  // namespace

Status Likeliest::allocate() {
  constexpr int64_t kBytes = RS_STEP_ROWS * static_cast<int64_t>(sizeof(uint64_t));
  RS_TRY(keys, DeviceMemory::allocate(kBytes));
  RS_TRY(host_keys, PinnedMemory::allocate(kBytes));
  return Unit{};
}

Status run_steps(Loaded& loaded, const rs_step* steps, int32_t* const* chosen, int64_t count, int32_t ids,
                 const rs_poll* poll) {
  Likeliest& likeliest = loaded.likeliest;
  const cudaStream_t stream = loaded.stream.get();
  std::vector<Stepping> all;
  int64_t rows = 0;
  for (int64_t i = 0; i < count; ++i) {
    auto* const session = reinterpret_cast<Session*>(steps[i].session);
    RS_CHECK(session->await(loaded.stream));
    RS_CHECK(session->prepare_pages(steps[i].count, loaded.stream));
    all.push_back(
        {&steps[i], chosen == nullptr ? nullptr : chosen[i], rows, session, session->state, session->position});
    rows += steps[i].count;
  }
  likeliest.row_of.clear();
  std::vector<int64_t> row_of(static_cast<size_t>(rows), -1);
  const auto key_bytes = static_cast<size_t>(rows) * sizeof(uint64_t);
  if (chosen != nullptr) RS_CUDA(cudaMemsetAsync(likeliest.keys.data(), 0, key_bytes, stream));
  for (int64_t done = 0; done < rows;) {
    if (poll != nullptr && poll->cancelled != nullptr && poll->cancelled(poll->context) != 0) {
      return Error{ErrorKind::kCancelled, "step", "", ""};
    }
    Pass pass(loaded, done, ids, row_of);
    for (Stepping& stepping : all) {
      if (stepping.left() == 0) continue;
      RS_TRY(const bool added, pass.add(stepping));
      if (!added) break;
    }
    RS_CHECK(pass.run());
    done += pass.rows();
  }
  if (chosen != nullptr) {
    RS_CUDA(
        cudaMemcpyAsync(likeliest.host_keys.data(), likeliest.keys.data(), key_bytes, cudaMemcpyDeviceToHost, stream));
  }
  RS_CHECK(loaded.stream.wait());
  for (Stepping& stepping : all) {
    stepping.give_chosen(reinterpret_cast<const uint64_t*>(likeliest.host_keys.data()), row_of);
    stepping.session->state = std::move(stepping.state);
    stepping.session->position = stepping.position;
  }
  if (chosen != nullptr) likeliest.row_of = std::move(row_of);
  return Unit{};
}

Status likeliest_logits(const Loaded& loaded, int64_t row, float* out) {
  const std::vector<int64_t>& row_of = loaded.likeliest.row_of;
  const auto rows = static_cast<int64_t>(row_of.size());
  if (row < 0 || row >= rows || row_of[static_cast<size_t>(row)] < 0) {
    return Error{ErrorKind::kStateInvalid, "logits", "a row of the last call, which chose its ids",
                 std::to_string(row)};
  }
  const int64_t vocab = loaded.model().config.vocab_rows;
  return copy_logits(loaded, loaded.workspace.logits + row_of[static_cast<size_t>(row)] * vocab, 1, out);
}

}  // namespace ringside::cuda
