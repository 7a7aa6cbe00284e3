// Owns: the passes over the layers: the read path, which takes a prompt slab by slab, and the step path's surroundings.
#pragma once

#include <vector>

#include "cuda/kernels/read_products.h"
#include "cuda/loaded.h"
#include "model/backend.h"

namespace ringside::cuda {

// Tokens of one session that are read in one pass.
struct Slab {
  Session* session = nullptr;
  const int32_t* tokens = nullptr;
  int64_t rows = 0;
  int64_t wanted = 0;  // of the last rows, whose logits go to
  float* logits = nullptr;
  bool is_last = true;  // of those that are read one after the other
};

class Forward {
 public:
  Forward(Loaded& loaded, const rs_poll* poll)
      : loaded_(loaded), model_(loaded.model()), work_(loaded.workspace), poll_(poll) {}

  // Reads a slab and moves its session. After a failure or a cancel the session is as it was.
  Status read(const Slab& slab);

 private:
  Status queue_layers(const Slab& slab);
  Status attend(const DeviceLayer& layer, const Slab& slab);
  Status feed_forward(const DeviceLayer& layer, int64_t rows);
  Status head(const Slab& slab);
  Status pace(size_t layer);
  Status check_cancelled() const;
  ReadRows normed(int64_t rows) const { return {work_.normed, model_.config.hidden, rows}; }
  cudaStream_t stream() const { return loaded_.stream.get(); }

  Loaded& loaded_;
  const DeviceModel& model_;
  const Workspace& work_;
  const rs_poll* poll_;
};

// All steps in passes of at most kStepRows rows; no session moves unless every step is through. `chosen` and `ids` are
// those of the table's step_likeliest; nullptr: none are chosen.
Status run_steps(Loaded& loaded, const rs_step* steps, int32_t* const* chosen, int64_t count, int32_t ids,
                 const rs_poll* poll);
Status likeliest_logits(const Loaded& loaded, int64_t row, float* out);

// Rows of logits from the workspace to ordinary memory; waits for them.
Status copy_logits(const Loaded& loaded, const float* from, int64_t rows, float* to);

}  // namespace ringside::cuda
