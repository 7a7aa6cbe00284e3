// Owns: memory of the model's weights: pieces of large blocks, given back with the whole.
#pragma once

#include <cstdint>
#include <vector>

#include "error.h"
#include "io/system_pages.h"

namespace ringside::cpu {

inline constexpr int64_t kCacheLineBytes = 64;
using ringside::kHugePageBytes;
using ringside::MappedMemory;

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

}  // namespace ringside::cpu
