// Owns: the layout and the sharing of session memory.
#include "cpu/state.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace ringside::cpu {

void LinearState::carve(Carver& carver) {
  const int64_t all_heads = layers_ * heads_;
  carver.take(s_, all_heads * head_dim_ * head_dim_);
  carver.take(k_columns_, all_heads * head_dim_ * kChunkTokens);
  carver.take(v_, all_heads * head_dim_ * kChunkTokens);
}

int64_t LinearState::planned_bytes(const Shape& shape) {
  LinearState plan;
  plan.layers_ = shape.linear_layers;
  plan.heads_ = shape.config.heads;
  plan.head_dim_ = shape.config.head_dim;
  Carver counter(nullptr);
  plan.carve(counter);
  return counter.bytes();
}

Result<LinearState> LinearState::allocate(const Shape& shape) {
  LinearState state;
  state.layers_ = shape.linear_layers;
  state.heads_ = shape.config.heads;
  state.head_dim_ = shape.config.head_dim;
  RS_TRY(state.memory_, MappedMemory::allocate(planned_bytes(shape), "linear states"));
  Carver carver(state.memory_.data());
  state.carve(carver);
  return state;
}

int64_t PageBlock::pages_of(int64_t page_bytes) {
  if (page_bytes <= 0) return 1;
  int64_t best = 1;
  double least = 1.0;
  for (int64_t pages = 1; pages <= kMostPages && (pages == 1 || pages * page_bytes <= kMostBytes); ++pages) {
    const int64_t bytes = pages * page_bytes;
    const double in_small = static_cast<double>(bytes % kHugePageBytes) / static_cast<double>(bytes);
    // A few pages of a tiny model fill no huge page at all: then as many as may be, which saves mappings.
    if (in_small > least || (in_small == least && least < 1.0)) continue;
    best = pages;
    least = in_small;
    if (in_small <= 1.0 / 16) break;
  }
  return best;
}

Result<std::shared_ptr<PageBlock>> PageBlock::allocate(int64_t page_bytes) {
  auto block = std::make_shared<PageBlock>();
  block->page_bytes_ = page_bytes;
  block->pages_ = pages_of(page_bytes);
  RS_TRY(block->memory_, MappedMemory::allocate(block->pages_ * page_bytes, "key-value pages"));
  return block;
}

int64_t PageBlock::take() {
  // What the last holder of a slot did to it happened before it gave the slot back.
  const int64_t index = std::countr_one(held_.load(std::memory_order_acquire));
  if (index >= pages_) return -1;
  held_.fetch_or(uint64_t{1} << index, std::memory_order_acquire);
  // Kernels multiply keys past the end by zero, which is zero only if they are numbers.
  if (index < touched_) std::memset(slot(index), 0, static_cast<size_t>(page_bytes_));
  touched_ = std::max(touched_, index + 1);
  return index;
}

int64_t Page::planned_bytes(const Shape& shape, rs_kv_format format) {
  const KvLayout layout{format, shape.config.head_dim};
  return shape.softmax_layers * 2 * shape.config.kv_heads * layout.part_bytes();
}

bool Page::take_slot(const std::shared_ptr<PageBlock>& block) {
  const int64_t slot = block->take();
  if (slot < 0) return false;
  block_ = block;
  slot_ = slot;
  data_ = block->slot(slot);
  return true;
}

Result<std::shared_ptr<Page>> Page::allocate(const Shape& shape, rs_kv_format format,
                                             std::span<const std::shared_ptr<Page>> neighbours) {
  auto page = std::make_shared<Page>();
  page->parts_ = 2 * int64_t{shape.config.kv_heads};
  page->layout_ = {format, shape.config.head_dim};
  page->bytes_ = planned_bytes(shape, format);
  for (size_t i = neighbours.size(); i-- > 0;) {
    if (page->take_slot(neighbours[i]->block_)) return page;
  }
  RS_TRY(const std::shared_ptr<PageBlock> block, PageBlock::allocate(page->bytes_));
  page->take_slot(block);
  return page;
}

void Page::copy_from(const Page& other) {
  if (bytes_ > 0) std::memcpy(data_, other.data_, static_cast<size_t>(bytes_));
}

int64_t block_bytes(std::span<const std::shared_ptr<Page>> pages) {
  int64_t bytes = 0;
  for (size_t i = 0; i < pages.size(); ++i) {
    const PageBlock* block = &pages[i]->block();
    size_t before = i;  // its neighbour is nearly always the one just before
    while (before > 0 && &pages[before - 1]->block() != block) --before;
    if (before == 0) bytes += block->bytes();
  }
  return bytes;
}

Status prepare_pages(const Shape& shape, rs_kv_format format, int64_t first, int64_t rows,
                     std::vector<std::shared_ptr<Page>>& pages) {
  const size_t begin = static_cast<size_t>(first / kPageTokens);
  const size_t end = static_cast<size_t>((first + rows - 1) / kPageTokens + 1);
  for (size_t index = begin; index < end; ++index) {
    if (index < pages.size() && pages[index].use_count() == 1) continue;
    RS_TRY(std::shared_ptr<Page> page, Page::allocate(shape, format, pages));
    if (index < pages.size()) {
      page->copy_from(*pages[index]);
      pages[index] = std::move(page);
    } else {
      pages.push_back(std::move(page));
    }
  }
  return Unit{};
}

}  // namespace ringside::cpu
