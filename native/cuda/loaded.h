// Owns: one loaded model on one device, as the backend table hands it out.
// One call at a time runs on a model: its sessions share the stream, the workspace and the spare state.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/expert_stream.h"
#include "cuda/kernels/step.h"
#include "cuda/session.h"
#include "cuda/stream.h"
#include "cuda/weights.h"
#include "cuda/workspace.h"

namespace ringside::cuda {

// How far the host runs ahead of the device, in layers: enough that the device never waits, and so little that a cancel
// is obeyed after a few milliseconds.
inline constexpr size_t kLayersAhead = 2;

// Where the last call that chose ids left them and the logits behind them.
struct Likeliest {
  DeviceMemory keys;            // uint64_t [RS_STEP_ROWS], in the workspace's rows
  PinnedMemory host_keys;       // the same
  std::vector<int64_t> row_of;  // of the workspace's logits, by the token's place in the steps; -1: not computed

  Status allocate();
};

struct Loaded {
  // In the order in which each needs those before it; destroyed from the end.
  Stream stream;
  std::array<Event, kLayersAhead> layer_ends;
  Weights weights;
  std::unique_ptr<ExpertStream> experts;  // null: all are on the device
  Workspace workspace;
  std::unique_ptr<SessionPools> pools;
  LinearState spare;  // written by a slab, and exchanged with the session's when it is through
  StateCopies copies;
  Likeliest likeliest;
  std::unique_ptr<StepPath, StepPathDeleter> step_path;
  int32_t device_index = 0;
  std::string device, isa;
  int threads = 1;  // that loaded it
  std::mutex running;

  const DeviceModel& model() const { return weights.model; }
};

}  // namespace ringside::cuda
