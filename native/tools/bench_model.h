// Owns: the model a benchmark runs: random weights of a known shape, or a checkpoint, loaded into the CPU or the CUDA
// backend; and what it weighs.
#pragma once

#include <memory>

#include "error.h"
#include "model/backend.h"
#include "model/config.h"
#include "tools/bench_cost.h"
#include "tools/bench_options.h"
#include "tools/bench_shapes.h"

namespace ringside::tools {

class BenchModel {
 public:
  virtual ~BenchModel() = default;
  virtual const Config& config() const = 0;
  virtual const rs_backend& backend() const = 0;
  virtual rs_model* handle() const = 0;
  virtual const StoredWeights& weights() const = 0;
};

Result<std::unique_ptr<BenchModel>> load_bench_model(const BenchOptions& options);

}  // namespace ringside::tools
