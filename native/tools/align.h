// Owns: the alignment report (specification section 9.4): the same tokens through the float64 reference and through
// every way in which the CPU backend can read them. Must never: judge; limits belong to the tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "model/loaded_model.h"
#include "tools/aligned_path.h"
#include "tools/bench_options.h"

namespace ringside::tools {

// How far a layer of the first path is from the reference's, both on what their own layers before gave them:
// root mean square of the difference over that of the reference.
struct AlignedLayer {
  bool is_softmax = false;
  double attention = 0.0, mlp = 0.0, residual = 0.0;
  double router = 1.0;  // share of chosen experts that the reference chose too; 1 where there is no router
};

struct Alignment {
  int64_t tokens = 0;
  std::vector<AlignedPath> paths;  // chunked prefill, step decode, batched decode
  std::vector<AlignedLayer> layers;
  bool is_identical() const;
};

// `ids` holds at least two tokens: all but the last are read, each one's successor is the chosen token. Both models
// hold the same checkpoint, `fast` in the CPU backend, `reference` in the reference.
Result<Alignment> align(const LoadedModel& fast, const LoadedModel& reference, const std::vector<int32_t>& ids);

// The whole command: 1 also when the paths differ in a bit.
int run_align(const BenchOptions& options);

}  // namespace ringside::tools
