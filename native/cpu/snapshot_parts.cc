#include "cpu/snapshot_parts.h"

#include <cstring>
#include <string>
#include <utility>

#include "model/float_formats.h"

namespace ringside::cpu {
namespace {

// Keys or values of one head.
bool is_part_finite(const KvLayout& layout, const uint8_t* part) {
  const int64_t values = layout.channels() * kPageTokens;
  if (layout.format == RS_KV_F32) return are_finite(part, values);
  if (layout.format == RS_KV_BF16) return are_finite_bf16(part, values);
  return are_finite(part + layout.scales_offset_bytes(), kPageTokens);
}

bool is_page_finite(const Page& page) {
  const int64_t part_bytes = page.layout().part_bytes();
  for (int64_t offset = 0; offset < page.bytes(); offset += part_bytes) {
    if (!is_part_finite(page.layout(), page.data() + offset)) return false;
  }
  return true;
}

Error not_finite(const std::string& what) { return {ErrorKind::kFileMalformed, what, "finite numbers", "others"}; }

}  // namespace

int64_t state_part_bytes(const Shape& shape) {
  const int64_t per_head = int64_t{shape.config.head_dim} * shape.config.head_dim;
  return shape.linear_layers * shape.config.heads * per_head * static_cast<int64_t>(sizeof(float));
}

Result<std::unique_ptr<Snapshot>> import_snapshot(const void* model, const Shape& shape, rs_kv_format format,
                                                  int64_t position, const void* state, const void* const* pages) {
  if (position < 0 || position > shape.config.context_tokens || position % kChunkTokens != 0) {
    return Error{ErrorKind::kArgumentInvalid, "position", "a multiple of 64 inside the context",
                 std::to_string(position)};
  }
  auto snapshot = std::make_unique<Snapshot>();
  snapshot->model = model;
  snapshot->position = position;
  const int64_t state_bytes = state_part_bytes(shape);
  RS_TRY(snapshot->s, MappedMemory::allocate(state_bytes, "snapshot"));
  if (state_bytes > 0) std::memcpy(snapshot->s.data(), state, static_cast<size_t>(state_bytes));
  if (!are_finite(snapshot->s.data(), state_bytes / 4)) return not_finite("state");
  for (int64_t begin = 0; begin < position; begin += kPageTokens) {
    RS_TRY(std::shared_ptr<Page> page, Page::allocate(shape, format, snapshot->pages));
    if (page->bytes() > 0) std::memcpy(page->data(), pages[begin / kPageTokens], static_cast<size_t>(page->bytes()));
    if (!is_page_finite(*page)) return not_finite("page " + std::to_string(begin / kPageTokens));
    snapshot->pages.push_back(std::move(page));
  }
  return snapshot;
}

}  // namespace ringside::cpu
