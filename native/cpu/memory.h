// Owns: large blocks of memory straight from the operating system, zeroed, given back page by page when dropped.
// Must never: throw, or be used for small short-lived objects.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "error.h"

namespace ringside::cpu {

inline constexpr int64_t kCacheLineBytes = 64;
// Memory of this length or more begins at a multiple of it and lies in huge pages, where the system has them.
inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

class MappedMemory {
 public:
  // `what` names the purpose in the error when the system refuses.
  static Result<MappedMemory> allocate(int64_t bytes, const char* what);

  MappedMemory() = default;
  MappedMemory(MappedMemory&& other) noexcept { swap(other); }
  MappedMemory& operator=(MappedMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedMemory();

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(MappedMemory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Hands out cache-line aligned pieces that live as long as the arena. Pages that are never written cost nothing.
class Arena {
 public:
  Result<uint8_t*> allocate(int64_t bytes, const char* what);
  int64_t used_bytes() const { return used_bytes_; }

 private:
  std::vector<MappedMemory> blocks_;
  int64_t block_used_bytes_ = 0;  // of the last block
  int64_t used_bytes_ = 0;        // of all blocks
};

// Cuts one block into typed arrays: the first pass counts the bytes, the second hands out the pointers.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  template <class T>
  void take(T*& pointer, int64_t count) {
    if (base_ != nullptr) pointer = reinterpret_cast<T*>(base_ + offset_bytes_);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    offset_bytes_ += (bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
  }
  int64_t bytes() const { return offset_bytes_; }

 private:
  uint8_t* base_;
  int64_t offset_bytes_ = 0;
};

}  // namespace ringside::cpu
