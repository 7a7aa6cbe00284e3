// Owns: the layout and the sharing of session memory.
#include "cpu/state.h"

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

int64_t Page::planned_bytes(const Shape& shape, rs_kv_format format) {
  const KvLayout layout{format, shape.config.head_dim};
  return shape.softmax_layers * 2 * shape.config.kv_heads * layout.part_bytes();
}

Result<std::shared_ptr<Page>> Page::allocate(const Shape& shape, rs_kv_format format) {
  auto page = std::make_shared<Page>();
  page->parts_ = 2 * int64_t{shape.config.kv_heads};
  page->layout_ = {format, shape.config.head_dim};
  RS_TRY(page->memory_, MappedMemory::allocate(planned_bytes(shape, format), "key-value page"));
  return page;
}

void Page::copy_from(const Page& other) {
  if (memory_.bytes() > 0) std::memcpy(memory_.data(), other.memory_.data(), static_cast<size_t>(memory_.bytes()));
}

Status prepare_pages(const Shape& shape, rs_kv_format format, int64_t first, int64_t rows,
                     std::vector<std::shared_ptr<Page>>& pages) {
  const size_t begin = static_cast<size_t>(first / kPageTokens);
  const size_t end = static_cast<size_t>((first + rows - 1) / kPageTokens + 1);
  for (size_t index = begin; index < end; ++index) {
    if (index < pages.size() && pages[index].use_count() == 1) continue;
    RS_TRY(std::shared_ptr<Page> page, Page::allocate(shape, format));
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
