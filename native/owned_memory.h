// Owns: what blocks of memory have in common, whoever gave them: that they are given back when dropped, and how one is
// cut into arrays.
#pragma once

#include <cstdint>
#include <utility>

#include "error.h"

namespace ringside {

// `Giver` has take(bytes, …), which gives a block or says why not, and give_back(data, bytes), which must not fail.
template <class Giver>
class OwnedMemory {
 public:
  template <class... Arguments>
  static Result<OwnedMemory> allocate(int64_t bytes, Arguments... arguments) {
    OwnedMemory memory;
    if (bytes > 0) {
      RS_TRY(memory.data_, Giver::take(bytes, arguments...));
      memory.bytes_ = bytes;
    }
    return Result<OwnedMemory>(std::move(memory));
  }

  OwnedMemory() = default;
  OwnedMemory(OwnedMemory&& other) noexcept { swap(other); }
  OwnedMemory& operator=(OwnedMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~OwnedMemory() {
    if (data_ != nullptr) Giver::give_back(data_, bytes_);
  }

  // The block is somebody else's from now on.
  uint8_t* release() {
    bytes_ = 0;
    return std::exchange(data_, nullptr);
  }

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(OwnedMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Cuts one block into typed arrays: the first pass counts the bytes, the second hands out the pointers.
class Carver {
 public:
  // Longer than the cache lines of processors and of GPUs.
  static constexpr int64_t kAlignment = 256;

  explicit Carver(uint8_t* base) : base_(base) {}
  template <class T>
  void take(T*& pointer, int64_t count) {
    if (base_ != nullptr) pointer = reinterpret_cast<T*>(base_ + offset_bytes_);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    offset_bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  int64_t bytes() const { return offset_bytes_; }

 private:
  uint8_t* base_;
  int64_t offset_bytes_ = 0;
};

}  // namespace ringside
