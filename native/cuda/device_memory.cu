#include <algorithm>

#include "cuda/device_memory.h"

namespace ringside::cuda {

// What is given back is given back: those calls are not counted, so a test cannot make them fail and leak.
DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

Result<DeviceMemory> DeviceMemory::allocate(int64_t bytes) {
  DeviceMemory memory;
  if (bytes == 0) return Result<DeviceMemory>(std::move(memory));
  RS_CUDA(cudaMalloc(&memory.data_, static_cast<size_t>(bytes)));
  memory.bytes_ = bytes;
  return Result<DeviceMemory>(std::move(memory));
}

Result<PinnedMemory> PinnedMemory::allocate(int64_t bytes) {
  PinnedMemory memory;
  if (bytes == 0) return Result<PinnedMemory>(std::move(memory));
  void* data = nullptr;
  RS_CUDA(cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocDefault));
  memory.data_ = static_cast<uint8_t*>(data);
  memory.bytes_ = bytes;
  return Result<PinnedMemory>(std::move(memory));
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
