// Owns: how much device memory a model needs, and the refusal when there is less. Made before anything is allocated.
#pragma once

#include "cuda/model.h"
#include "error.h"

namespace ringside::cuda {

struct MemoryPlan {
  int64_t weight_bytes = 0;
  int64_t state_bytes = 0;      // S of all linear layers
  int64_t open_rows_bytes = 0;  // of one open chunk
  int64_t page_bytes = 0;       // keys and values of 256 positions
  int64_t context_pages = 0;    // of a session that is full
  int64_t workspace_bytes = 0;

  // One session that is full, what a slab writes before it is committed, and one snapshot.
  int64_t needed_bytes() const {
    return weight_bytes + 3 * state_bytes + 2 * open_rows_bytes + context_pages * page_bytes + workspace_bytes;
  }
};

// Everything but the weights and the workspace.
MemoryPlan plan_sessions(const DeviceModel& model);

// What may be taken of so much memory: others use the device too, and the driver itself needs some.
int64_t usable_bytes(int64_t free_bytes, int64_t total_bytes);
// kOutOfMemory with both numbers when the device's free memory is short. `taken_bytes` of the plan are allocated by
// now.
Status check_memory(const MemoryPlan& plan, int64_t taken_bytes);

}  // namespace ringside::cuda
