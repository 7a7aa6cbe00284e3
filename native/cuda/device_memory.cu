#include <algorithm>
#include <cstring>

#include "cuda/device_memory.h"
#include "io/system_pages.h"

namespace ringside::cuda {

Result<uint8_t*> DeviceBytes::take(int64_t bytes) {
  void* data = nullptr;
  RS_CUDA(cudaMalloc(&data, static_cast<size_t>(bytes)));
  return static_cast<uint8_t*>(data);
}

Result<uint8_t*> HostPages::take(int64_t bytes) { return SystemPages::take(bytes, "memory for the GPU"); }

Status pin(const HostMemory& memory) {
  if (memory.bytes() == 0) return Unit{};
  RS_CUDA(cudaHostRegister(memory.data(), static_cast<size_t>(memory.bytes()), cudaHostRegisterMapped));
  void* on_device = nullptr;
  RS_CUDA(cudaHostGetDevicePointer(&on_device, memory.data(), 0));
  if (on_device == memory.data()) return Unit{};
  return Error{ErrorKind::kBackendUnavailable, "memory of the host", "at the same address for the GPU", "another"};
}

Result<uint8_t*> PinnedPages::take(int64_t bytes) {
  RS_TRY(HostMemory memory, HostMemory::allocate(bytes));
  std::memset(memory.data(), 0, static_cast<size_t>(bytes));
  RS_CHECK(pin(memory));
  return memory.release();
}

// What is given back is given back: those calls are not counted, so a test cannot make them fail and leak.
void DeviceBytes::give_back(uint8_t* data, int64_t) { cudaFree(data); }

void HostPages::give_back(uint8_t* data, int64_t bytes) {
  // Refused where the memory was never pinned, which the next call must not be blamed for.
  if (cudaHostUnregister(data) != cudaSuccess) cudaGetLastError();
  SystemPages::give_back(data, bytes);
}

PiecePool::PiecePool(int64_t piece_bytes, int64_t block_bytes)
    : piece_bytes_((piece_bytes + 255) / 256 * 256),
      pieces_of_block_(std::max<int64_t>(1, block_bytes / std::max<int64_t>(1, piece_bytes_))) {}

Result<uint8_t*> PiecePool::take_free() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) {
    RS_TRY(DeviceMemory block, DeviceMemory::allocate(pieces_of_block_ * piece_bytes_));
    // Room for every piece there is, so that giving one back never allocates.
    free_.reserve((blocks_.size() + 1) * static_cast<size_t>(pieces_of_block_));
    blocks_.push_back(std::move(block));
    for (int64_t i = pieces_of_block_; i-- > 0;) free_.push_back(blocks_.back().data() + i * piece_bytes_);
  }
  uint8_t* data = free_.back();
  free_.pop_back();
  return data;
}

Result<Piece> PiecePool::take(cudaStream_t stream) {
  if (piece_bytes_ == 0) return Piece();
  RS_TRY(uint8_t* const data, take_free());
  Piece piece(data, [this](uint8_t* returned) {
    const std::lock_guard lock(mutex_);
    free_.push_back(returned);
  });
  RS_CUDA(cudaMemsetAsync(data, 0, static_cast<size_t>(piece_bytes_), stream));
  return piece;
}

}  // namespace ringside::cuda
