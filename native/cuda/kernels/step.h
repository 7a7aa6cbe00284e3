// Owns: the step path: one pass over the weights for a few rows of several sessions (decode, drafts), in one
// cooperative launch. Bits of a row do not depend on the other rows.
#pragma once

#include "cuda/model.h"
#include "error.h"

namespace ringside::cuda {

inline constexpr int64_t kStepRows = 32;  // of one pass; a step of more is several

// A session's part of a step: rows of one chunk alone. Parts lie behind one another, and a session is in one of them.
struct StepPart {
  SessionView session;
  int32_t first_row;  // of the step
  int32_t rows;
  float* next_s;  // where S goes if the part completes a chunk (house rule 3a), else null
};

class StepPath;  // workspace and the model's layers in device memory; one step at a time

struct StepPathDeleter {
  void operator()(StepPath* path) const;
};

int64_t step_scratch_bytes(const DeviceModel& model);
// What its kernel cannot do is refused by name. Needs the model's numbers alone.
Status check_step_shape(const DeviceModel& model);
// `model` must outlive it.
Result<StepPath*> make_step_path(const DeviceModel& model, cudaStream_t stream);
// tokens: host [rows]. logits: device [rows, vocab_rows], only of the rows r with wanted[r] != 0 (host [rows]).
// Appends k and v of linear layers to the open rows, writes next_s of completed chunks and the pages' keys and values.
Status run_step(StepPath& path, const StepPart* parts, int64_t part_count, const int32_t* tokens, const uint8_t* wanted,
                float* logits, cudaStream_t stream);

// The same for profiles: `stamps` (device memory, 8 words a layer and some) gets the clock of one multiprocessor at the
// end of each phase and behind the barrier after it.
Status run_step_with_stamps(StepPath& path, const StepPart* parts, int64_t part_count, const int32_t* tokens,
                            const uint8_t* wanted, float* logits, uint64_t* stamps, cudaStream_t stream);

}  // namespace ringside::cuda
