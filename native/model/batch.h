// Owns: which generations share a pass over the weights, and the passes. One generation alone is a batch of one.
// Must never: let one member's tokens depend on another's.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "session_decoding.h"

namespace ringside {

class Batch {
 public:
  explicit Batch(const LoadedModel& model) : model_(model) {}

  // A generation of a session of that model which no other member has. The arguments live as long as the batch.
  Status add(SessionState& state, const GenerateOptions& options, const CancelFlag& cancel,
             const std::function<bool(int32_t id)>& sink);
  // Ends when all members have ended, or with the first failure.
  Status run();
  const GenerateResult& result(size_t member) const { return members_[member]->result(); }

 private:
  using Served = std::span<Decoding* const>;

  static Status go_on(Decoding& member, std::vector<Decoding*>& waiting);
  Result<bool> pass(Served served);
  int64_t plan(Served served);
  void provide(Served served, int64_t rows);
  bool step(Served served, int64_t rows, rs_error& error);

  const LoadedModel& model_;
  std::vector<rs_step> steps_;
  std::vector<float> logits_;     // [rows of the pass that want them, vocab_rows]
  std::vector<int32_t> ids_;      // [rows of the pass]
  std::vector<int32_t*> chosen_;  // of each step; nullptr: it wants logits
  // After logits and ids, which a member that is given up in the middle still reads.
  std::vector<std::unique_ptr<Decoding>> members_;
};

}  // namespace ringside
