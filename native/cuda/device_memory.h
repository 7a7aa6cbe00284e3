// Owns: memory of the device and pinned memory of the host, given back when dropped, and pools of equal pieces, because
// an allocation makes the device wait and is far too slow for a page or a snapshot.
// Must never: be asked for a piece by a launched kernel's caller that has not ordered its work on the model's stream: a
// piece that came back may still be read by work queued there.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cuda/cuda_call.h"
#include "error.h"

namespace ringside::cuda {

class DeviceMemory {
 public:
  static Result<DeviceMemory> allocate(int64_t bytes);
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory();
  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(DeviceMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Host memory that the device copies from and to by itself, at the speed of the bus.
class PinnedMemory {
 public:
  static Result<PinnedMemory> allocate(int64_t bytes);
  PinnedMemory() = default;
  PinnedMemory(PinnedMemory&& other) noexcept { swap(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~PinnedMemory();
  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(PinnedMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Cuts one block into typed arrays: the first pass counts the bytes, the second hands out the pointers.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  template <class T>
  void take(T*& pointer, int64_t count) {
    if (base_ != nullptr) pointer = reinterpret_cast<T*>(base_ + offset_bytes_);
    take_bytes(count * static_cast<int64_t>(sizeof(T)));
  }
  // Where the piece begins, from the base on.
  int64_t take_bytes(int64_t bytes) {
    constexpr int64_t kAlignment = 256;
    const int64_t begin = offset_bytes_;
    offset_bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  }
  int64_t bytes() const { return offset_bytes_; }

 private:
  uint8_t* base_;
  int64_t offset_bytes_ = 0;
};

// A piece belongs to all who hold it and comes back to its pool with the last of them, from any thread.
using Piece = std::shared_ptr<uint8_t>;

// Its blocks are given back when the pool goes; every piece must have come back before.
class PiecePool {
 public:
  PiecePool(int64_t piece_bytes, int64_t block_bytes);
  PiecePool(const PiecePool&) = delete;
  PiecePool& operator=(const PiecePool&) = delete;
  int64_t piece_bytes() const { return piece_bytes_; }
  // All zero when the work queued on `stream` before this has run.
  Result<Piece> take(cudaStream_t stream);

 private:
  Result<uint8_t*> take_free();

  int64_t piece_bytes_;
  int64_t pieces_of_block_;
  std::mutex mutex_;  // guards what follows
  std::vector<DeviceMemory> blocks_;
  std::vector<uint8_t*> free_;
};

}  // namespace ringside::cuda
