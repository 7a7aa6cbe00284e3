// Owns: one loaded model on this processor and a session over it, as the backend table hands them out.
// One extend or step at a time runs on a model: the workspace and the spare states are shared by its sessions.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/input_forms.h"
#include "cpu/isa.h"
#include "cpu/state.h"
#include "cpu/thread_pool.h"
#include "cpu/weights.h"
#include "cpu/workspace.h"
#include "model/tap.h"

namespace ringside::cpu {

// How many rows the next slab of a long call takes: as many as take a few seconds, so that progress stays lively, and
// no fewer than the experts need to be worth reading. No result depends on it.
struct SlabPace {
  int64_t least = 512;
  int64_t most = kSlabRows;
  int64_t next = 512;

  // Of a call with so many tokens left. A short rest is taken along: alone it would read all experts once more.
  int64_t rows(int64_t left) const { return left <= next + next / 4 ? std::min(left, most) : next; }

  // A slab of `rows` took so long. One that was shorter than planned says too little.
  void took(int64_t rows, double seconds) {
    constexpr double kSeconds = 4.0;
    if (rows < next || seconds <= 0.0) return;
    const double in_time = std::min(static_cast<double>(rows) * kSeconds / seconds, static_cast<double>(2 * rows));
    next = std::clamp(static_cast<int64_t>(in_time) / kPageTokens * kPageTokens, least, most);
  }
};

struct Model {
  explicit Model(const rs_config& config) : shape(config) {}

  Shape shape;
  const Kernels* kernels = nullptr;
  rs_kv_format kv_format = RS_KV_BF16;
  ThreadPool pool;
  Weights weights;
  std::vector<LayerForms> layer_forms;  // of each layer of the weights
  Workspace workspace;
  // Each receives the states of one segment of a running slab in which a chunk ends, and is exchanged with the
  // session's when the slab is through. One to begin with; a step of several sessions adds those it needs.
  std::vector<LinearState> spares;
  SlabPace pace;
  const Tap* tap = nullptr;  // a tool that watches
  std::string device;
  std::mutex running;

  KvLayout kv_layout() const { return {kv_format, shape.config.head_dim}; }
};

struct Session {
  Model* model = nullptr;
  int64_t position = 0;
  LinearState state;
  std::vector<std::shared_ptr<Page>> pages;
};

}  // namespace ringside::cpu
