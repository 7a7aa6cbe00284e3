// Owns: what a session remembers (house rule 3a): linear states at the last chunk boundary, the open chunk's rows, and
// the key-value pages of the softmax layers.
// Must never: change a page that somebody else also holds.
#pragma once

#include <memory>
#include <vector>

#include "cpu/kernels/attention_kernels.h"
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

// Keys and values of 256 positions, for all softmax layers. attention_kernels.h lays out the parts; of one head the
// values follow the keys, and the heads of a layer lie side by side.
class Page {
 public:
  static Result<std::shared_ptr<Page>> allocate(const Shape& shape, rs_kv_format format);
  static int64_t planned_bytes(const Shape& shape, rs_kv_format format);

  const KvLayout& layout() const { return layout_; }
  uint8_t* keys(int64_t layer, int64_t kv_head) const { return part(layer, 2 * kv_head); }
  uint8_t* values(int64_t layer, int64_t kv_head) const { return part(layer, 2 * kv_head + 1); }
  void copy_from(const Page& other);

 private:
  uint8_t* part(int64_t layer, int64_t index) const {
    return memory_.data() + (layer * parts_ + index) * layout_.part_bytes();
  }
  MappedMemory memory_;
  KvLayout layout_{RS_KV_BF16, 0};
  int64_t parts_ = 0;  // of one layer: keys and values of each head
};

struct Snapshot {
  const void* model;  // only compared
  int64_t position;
  MappedMemory s;  // LinearState::all_s
  std::vector<std::shared_ptr<Page>> pages;
};

// Makes the pages of positions [first, first + rows) exist and belong to the holder of `pages` alone.
Status prepare_pages(const Shape& shape, rs_kv_format format, int64_t first, int64_t rows,
                     std::vector<std::shared_ptr<Page>>& pages);

}  // namespace ringside::cpu
