// Owns: how much memory a model needs, which of its experts stay in memory of the host where the device has too little,
// and the refusal when even that does not help. Made before anything is allocated.
#pragma once

#include <string>
#include <vector>

#include "cuda/model.h"
#include "error.h"

namespace ringside::cuda {

// What weights take, by what can become of them.
struct WeightBytes {
  struct Experts {
    size_t layer = 0;
    int64_t gate_up = 0, down = 0;  // of all experts of the layer, the shared one too
    int64_t bytes() const { return gate_up + down; }
  };
  int64_t resident = 0;          // always on the device
  std::vector<Experts> experts;  // of each layer with a mixture, ascending
};

struct MemoryPlan {
  int64_t weight_bytes = 0;     // on the device
  int64_t state_bytes = 0;      // S of all linear layers
  int64_t open_rows_bytes = 0;  // of one open chunk
  int64_t page_bytes = 0;       // keys and values of 256 positions
  int64_t context_pages = 0;    // of a session that is full
  int64_t slab_rows = 0;        // most rows that the read path takes at once
  int64_t workspace_bytes = 0;  // of a slab of so many, and of a step

  // Experts that stay in memory of the host, whole layers of them, and the buffers through which the read path takes
  // a layer's gate_up and its down.
  std::vector<size_t> host_layers;  // ascending
  int64_t host_bytes = 0;
  int64_t gate_up_buffer_bytes = 0, down_buffer_bytes = 0;

  // Of the device. One session that is full, with the state it can go back to, what a slab writes before it is
  // committed, and what steps write where a chunk ends. Snapshots have their states in host memory.
  int64_t needed_bytes() const {
    return weight_bytes + 4 * (state_bytes + open_rows_bytes) + context_pages * page_bytes + workspace_bytes +
           gate_up_buffer_bytes + down_buffer_bytes;
  }
};

// What the model may take.
struct MemoryLimits {
  int64_t device_bytes = 0;
  int64_t host_bytes = 0;
  bool is_chosen = false;  // the device's: by the user, so it says nothing about what is free
};

// Of a device whose calls this thread makes; `most_device_bytes` as rs_load_options.device_memory_bytes.
Result<MemoryLimits> memory_limits(int32_t device, int64_t most_device_bytes);

// Everything but the weights and the workspace.
MemoryPlan plan_sessions(const DeviceModel& model);
// As few layers as possible stay on the host, spread evenly. With none there the slab may be as short as
// kLeastSlabRows; with some it is as long as possible: they all pass the bus once a slab. kOutOfMemory has both
// numbers, of the device or of the host.
Result<MemoryPlan> plan_memory(const DeviceModel& model, const WeightBytes& weights, const MemoryLimits& limits);

// Of a slab of so many rows, and of a step.
int64_t workspace_bytes(const DeviceModel& model, int64_t rows);
// "1.25 GB"
std::string gigabytes(int64_t bytes);

}  // namespace ringside::cuda
