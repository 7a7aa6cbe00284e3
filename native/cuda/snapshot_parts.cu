#include <cstring>
#include <string>
#include <utility>

#include "cuda/device.h"
#include "cuda/snapshot_parts.h"
#include "model/float_formats.h"

namespace ringside::cuda {
namespace {

// In 8 bits any code is a number; the scales lie behind the codes of each part.
bool is_page_finite(rs_kv_format format, const void* page, int64_t bytes) {
  if (format == RS_KV_BF16) return are_finite_bf16(page, bytes / 2);
  const int64_t part_bytes = page_part_bytes(format);
  for (int64_t part = 0; part < bytes; part += part_bytes) {
    if (!are_finite(static_cast<const uint8_t*>(page) + part + page_part_values(), kPageTokens)) return false;
  }
  return true;
}

Error not_finite(const std::string& what) { return {ErrorKind::kFileMalformed, what, "finite numbers", "others"}; }

}  // namespace

Status export_state(const Snapshot& snapshot, void* out) {
  if (snapshot.state_bytes == 0) return Unit{};
  RS_CHECK(snapshot.s.wait());
  std::memcpy(out, snapshot.s.memory.get(), static_cast<size_t>(snapshot.state_bytes));
  return Unit{};
}

// The pages of a snapshot are shared, so nobody writes to them.
Status export_page(const Snapshot& snapshot, int64_t page, void* out) {
  const auto pages = static_cast<int64_t>(snapshot.pages.size());
  if (page < 0 || page >= pages) {
    return Error{ErrorKind::kArgumentInvalid, "page", "below " + std::to_string(pages), std::to_string(page)};
  }
  RS_CHECK(use_device(static_cast<const Loaded*>(snapshot.model)->device_index));
  const auto bytes = static_cast<size_t>(snapshot.page_bytes);
  const std::lock_guard lock(snapshot.pools->saved_mutex);
  const Page& from = *snapshot.pages[static_cast<size_t>(page)];
  if (from.device == nullptr) {
    std::memcpy(out, from.host.data(), bytes);
    return Unit{};
  }
  Stream stream;
  RS_CHECK(stream.create());
  RS_CUDA(cudaMemcpyAsync(out, from.device.get(), bytes, cudaMemcpyDeviceToHost, stream.get()));
  return stream.wait();
}

Status import_snapshot(Loaded& loaded, int64_t position, const void* state, const void* const* pages, Snapshot& out) {
  const DeviceModel& model = loaded.model();
  if (position < 0 || position > model.config.context_tokens || position % kChunkTokens != 0) {
    return Error{ErrorKind::kArgumentInvalid, "position", "a multiple of 64 inside the context",
                 std::to_string(position)};
  }
  out.model = &loaded;
  out.position = position;
  out.state_bytes = loaded.pools->states.piece_bytes();
  out.page_bytes = loaded.pools->pages.piece_bytes();
  if (!are_finite(state, out.state_bytes / 4)) return not_finite("state");
  RS_TRY(out.s, loaded.copies.keep(state));
  const cudaStream_t stream = loaded.stream.get();
  for (int64_t begin = 0; out.page_bytes > 0 && begin < position; begin += kPageTokens) {
    const void* const from = pages[begin / kPageTokens];
    if (!is_page_finite(model.kv_format, from, out.page_bytes)) {
      return not_finite("page " + std::to_string(begin / kPageTokens));
    }
    RS_TRY(std::shared_ptr<Page> page, loaded.pools->take_page(loaded.stream));
    RS_CUDA(
        cudaMemcpyAsync(page->device.get(), from, static_cast<size_t>(out.page_bytes), cudaMemcpyHostToDevice, stream));
    out.pages.push_back(std::move(page));
  }
  RS_CHECK(loaded.stream.wait());
  out.enlist(*loaded.pools);
  return Unit{};
}

}  // namespace ringside::cuda
