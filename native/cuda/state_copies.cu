#include <cstring>
#include <utility>

#include "cuda/state_copies.h"

namespace ringside::cuda {

// The pieces of device memory go back to a pool that knows the model's stream alone.
StateCopies::~StateCopies() {
  if (!copies_.empty()) cudaStreamSynchronize(stream_.get());
}

Status StateCopies::create(int64_t state_bytes) {
  state_bytes_ = state_bytes;
  RS_CHECK(stream_.create());
  return begin_.create();
}

Result<SavedState> StateCopies::save(const Piece& s, const Stream& stream) {
  RS_CHECK(settle());
  if (state_bytes_ == 0) return SavedState();
  Copy copy;
  copy.device = s;
  RS_TRY(copy.host, take_host_memory());
  RS_CHECK(queue(copy, cudaMemcpyDeviceToHost, stream));
  return SavedState{copy.host, copy.end};
}

Result<SavedState> StateCopies::keep(const void* s) {
  if (state_bytes_ == 0) return SavedState();
  SavedState saved;
  RS_TRY(saved.memory, take_host_memory());
  std::memcpy(saved.memory.get(), s, static_cast<size_t>(state_bytes_));
  return saved;
}

Result<std::shared_ptr<Event>> StateCopies::restore(const SavedState& saved, const Piece& s, const Stream& stream) {
  RS_CHECK(settle());
  if (state_bytes_ == 0) return std::shared_ptr<Event>();
  Copy copy{s, saved.memory, nullptr};
  RS_CHECK(queue(copy, cudaMemcpyHostToDevice, stream));
  return copy.end;
}

Status StateCopies::settle() {
  while (!copies_.empty()) {
    RS_TRY(const bool is_through, copies_.front().end->has_happened());
    if (!is_through) break;
    copies_.pop_front();
  }
  return Unit{};
}

Result<Piece> StateCopies::take_host_memory() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) {
    RS_TRY(PinnedMemory memory, PinnedMemory::allocate(state_bytes_));
    free_.reserve(memory_.size() + 1);  // so that giving one back never allocates
    memory_.push_back(std::move(memory));
    free_.push_back(memory_.back().data());
  }
  uint8_t* const data = free_.back();
  free_.pop_back();
  return Piece(data, [this](uint8_t* returned) {
    const std::lock_guard returning(mutex_);
    free_.push_back(returned);
  });
}

Status StateCopies::queue(Copy& copy, cudaMemcpyKind way, const Stream& stream) {
  copy.end = std::make_shared<Event>();
  RS_CHECK(copy.end->create());
  RS_CHECK(begin_.record(stream));
  RS_CHECK(begin_.hold_back(stream_));
  copies_.push_back(copy);
  const bool is_save = way == cudaMemcpyDeviceToHost;
  uint8_t* const to = (is_save ? copy.host : copy.device).get();
  const uint8_t* const from = (is_save ? copy.device : copy.host).get();
  const auto begin = [&]() -> Status {
    RS_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(state_bytes_), way, stream_.get()));
    return copy.end->record(stream_);
  };
  const Status begun = begin();
  if (begun.ok()) return begun;
  // Its end would never be known.
  cudaStreamSynchronize(stream_.get());
  copies_.pop_back();
  return begun;
}

}  // namespace ringside::cuda
