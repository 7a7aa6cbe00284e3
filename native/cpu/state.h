// Owns: what a session remembers (house rule 3a): linear states at the last chunk boundary, the open chunk's rows, and
// the key-value pages of the softmax layers.
// Must never: change a page that somebody else also holds.
#pragma once

#include <memory>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/memory.h"
#include "cpu/weights.h"
#include "error.h"

namespace ringside::cpu {

// For each linear layer and head: S at a chunk boundary, and the rows of k and v since.
class LinearState {
 public:
  static Result<LinearState> allocate(const Shape& shape);
  static int64_t planned_bytes(const Shape& shape);

  float* s(int64_t layer, int64_t head) const { return s_ + (layer * heads_ + head) * head_dim_ * head_dim_; }
  // [head_dim, 64]: transposed, so that 64 keys lie side by side.
  float* k_columns(int64_t layer, int64_t head) const {
    return k_columns_ + (layer * heads_ + head) * head_dim_ * kChunkTokens;
  }
  // [64, head_dim]
  float* v(int64_t layer, int64_t head) const { return v_ + (layer * heads_ + head) * head_dim_ * kChunkTokens; }

  float* all_s() const { return s_; }
  int64_t s_count() const { return layers_ * heads_ * head_dim_ * head_dim_; }
  int64_t bytes() const { return memory_.bytes(); }

 private:
  void carve(Carver& carver);
  MappedMemory memory_;
  int64_t layers_ = 0, heads_ = 0, head_dim_ = 0;
  float* s_ = nullptr;
  float* k_columns_ = nullptr;
  float* v_ = nullptr;
};

// Keys and values of 256 positions, for all softmax layers. In fp32: rounding them to bf16, as the specification's
// section 4 does, moves log-probabilities of small models by 0.01 to 0.1, far outside the 0.002 of the golden cases.
class Page {
 public:
  static Result<std::shared_ptr<Page>> allocate(const Shape& shape);
  static int64_t planned_bytes(const Shape& shape);

  // [head_dim, 256]: transposed, so that keys lie side by side.
  float* k_columns(int64_t layer, int64_t kv_head) const { return at(layer, 2 * kv_head); }
  // [256, head_dim]
  float* v(int64_t layer, int64_t kv_head) const { return at(layer, 2 * kv_head + 1); }
  void copy_from(const Page& other);

 private:
  float* at(int64_t layer, int64_t part) const {
    return reinterpret_cast<float*>(memory_.data()) + (layer * parts_ + part) * part_values_;
  }
  MappedMemory memory_;
  int64_t parts_ = 0;        // of one layer: K and V of each head
  int64_t part_values_ = 0;  // head_dim * 256
};

struct Snapshot {
  const void* model;  // only compared
  int64_t position;
  MappedMemory s;  // LinearState::all_s
  std::vector<std::shared_ptr<Page>> pages;
};

// Makes the pages of positions [first, first + rows) exist and belong to the holder of `pages` alone.
Status prepare_pages(const Shape& shape, int64_t first, int64_t rows, std::vector<std::shared_ptr<Page>>& pages);

}  // namespace ringside::cpu
