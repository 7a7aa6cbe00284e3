// Owns: one loaded model on this processor and a session over it, as the backend table hands them out.
// One extend at a time runs on a model: the workspace and the spare state are shared by its sessions.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/state.h"
#include "cpu/thread_pool.h"
#include "cpu/weights.h"
#include "cpu/workspace.h"
#include "model/tap.h"

namespace ringside::cpu {

struct Model {
  explicit Model(const rs_config& config) : shape(config) {}

  Shape shape;
  const Kernels* kernels = nullptr;
  rs_kv_format kv_format = RS_KV_BF16;
  ThreadPool pool;
  Weights weights;
  Workspace workspace;
  LinearState spare;  // receives the states of a running slab and is exchanged with the session's when it is through
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
