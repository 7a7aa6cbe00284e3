// Owns: what a session remembers (house rule 3a): linear states at the last chunk boundary, the open chunk's rows, and
// the key-value pages of the softmax layers.
// Must never: change a page that somebody else also holds.
#pragma once

#include <atomic>
#include <memory>
#include <span>
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

// Memory of several pages, in which each holds a slot. In 8 bits, or of a small model, a page alone is shorter than a
// huge page of the system, and small ones stream at three quarters of the speed. The pages own the block together and
// the last one gives it back to the system, so a page that somebody keeps, a snapshot for one, keeps its whole block:
// never more than kMostBytes, and counted in what its holder says it holds.
class PageBlock {
 public:
  static constexpr int64_t kMostPages = 64;
  static constexpr int64_t kMostBytes = int64_t{8} << 20;  // or one page, if that is larger

  // The fewest pages of which at most a sixteenth lies past the last whole huge page; else those with the least there.
  static int64_t pages_of(int64_t page_bytes);
  static Result<std::shared_ptr<PageBlock>> allocate(int64_t page_bytes);

  int64_t bytes() const { return memory_.bytes(); }
  uint8_t* slot(int64_t index) const { return memory_.data() + index * page_bytes_; }
  // The first slot that no page holds, all zero, or -1. One thread at a time takes: the one that runs the model.
  int64_t take();
  // Any thread, at any time: a snapshot may be dropped while the model runs.
  void give_back(int64_t index) { held_.fetch_and(~(uint64_t{1} << index), std::memory_order_release); }

 private:
  MappedMemory memory_;
  int64_t page_bytes_ = 0;
  int64_t pages_ = 0;
  int64_t touched_ = 0;            // slots before this one were held once, so they may hold anything
  std::atomic<uint64_t> held_{0};  // a bit for each slot
};

// Keys and values of 256 positions, for all softmax layers. attention_kernels.h lays out the parts; of one head the
// values follow the keys, and the heads of a layer lie side by side.
class Page {
 public:
  // In a block of one of `neighbours`, latest first, or in a new one when all of these are full.
  static Result<std::shared_ptr<Page>> allocate(const Shape& shape, rs_kv_format format,
                                                std::span<const std::shared_ptr<Page>> neighbours);
  static int64_t planned_bytes(const Shape& shape, rs_kv_format format);

  Page() = default;
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  ~Page() {
    if (block_ != nullptr) block_->give_back(slot_);
  }

  const KvLayout& layout() const { return layout_; }
  const PageBlock& block() const { return *block_; }
  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  uint8_t* keys(int64_t layer, int64_t kv_head) const { return part(layer, 2 * kv_head); }
  uint8_t* values(int64_t layer, int64_t kv_head) const { return part(layer, 2 * kv_head + 1); }
  void copy_from(const Page& other);

 private:
  uint8_t* part(int64_t layer, int64_t index) const { return data_ + (layer * parts_ + index) * layout_.part_bytes(); }
  bool take_slot(const std::shared_ptr<PageBlock>& block);

  std::shared_ptr<PageBlock> block_;
  int64_t slot_ = 0;
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
  KvLayout layout_{RS_KV_BF16, 0};
  int64_t parts_ = 0;  // of one layer: keys and values of each head
};

struct Snapshot {
  const void* model;  // only compared
  int64_t position;
  MappedMemory s;  // LinearState::all_s
  std::vector<std::shared_ptr<Page>> pages;
};

// Of the blocks in which the pages lie, each counted once.
int64_t block_bytes(std::span<const std::shared_ptr<Page>> pages);

// Makes the pages of positions [first, first + rows) exist and belong to the holder of `pages` alone.
Status prepare_pages(const Shape& shape, rs_kv_format format, int64_t first, int64_t rows,
                     std::vector<std::shared_ptr<Page>>& pages);

}  // namespace ringside::cpu
