// Owns: the list of tensors of the family (specification section 7) and the form that each will have in device memory.
#pragma once

#include <string>
#include <vector>

#include "cuda/memory_plan.h"
#include "cuda/weights.h"

namespace ringside::cuda {

// A stack of matrices of one form, and where it goes.
struct WeightTarget {
  enum class Kind { kPlain, kGateUp, kRouter };

  Kind kind = Kind::kPlain;
  // The stored matrices, each [rows, columns]: one for each entry of the stack; of kGateUp gate and up in turn.
  std::vector<std::string> bases;
  int64_t rows = 0, columns = 0;
  WeightForm form;            // holds every matrix looked at so far
  int32_t expert_layer = -1;  // whose experts these are; -1: none's
  bool is_on_host = false;
  bool has_low = false;            // of a router: whose weights have more than bf16 holds
  DeviceMatrix* matrix = nullptr;  // one of these two describes it to the kernels
  DeviceStack* stack = nullptr;
  uint8_t* blocks = nullptr;
  float* scales = nullptr;
  float* offsets = nullptr;

  int64_t parts() const { return kind == Kind::kGateUp ? 2 : 1; }
  int64_t entries() const { return static_cast<int64_t>(bases.size()) / parts(); }
  DeviceMatrix shape() const;  // of one entry
  int64_t tiles() const { return shape().rows / kTileRows; }
  int64_t tile_block_bytes() const { return shape().block_bytes() / tiles(); }
  int64_t tile_scales() const { return shape().scale_count() / tiles(); }
  // Of blocks, scales and offsets together.
  int64_t tile_bytes() const;
  // Of all entries; all scales lie behind all blocks, and offsets behind scales.
  void cut(Carver& carver, uint8_t*& to_blocks, float*& to_scales, float*& to_offsets) const;
  int64_t bytes() const;
};

struct WeightList {
  struct Vector {
    const float** to = nullptr;
    size_t begin = 0;
  };
  std::vector<WeightTarget> targets;  // in the order in which a token meets them
  std::vector<float> floats;          // all vectors, one after the other
  std::vector<Vector> vectors;

  WeightBytes bytes() const;
};

// Reads the vectors, and a few rows of the first and the last matrix of each stack for their form.
Status list_weights(const rs_weight_source& source, Weights& out, WeightList& list);

// Cuts the target's memory, pointing it and the kernels' description at it where the carver has a base.
void place_target(WeightTarget& target, Carver& carver);

}  // namespace ringside::cuda
