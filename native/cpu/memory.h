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
  // Small pieces of one worker lie together: of two threads that write to one huge page for the first time both clear
  // it, and the work of one is thrown away.
  Result<uint8_t*> allocate(int64_t bytes, const char* what, int worker);
  int64_t used_bytes() const { return used_bytes_; }

 private:
  struct Stretch {
    uint8_t* begin = nullptr;
    int64_t bytes = 0;
  };

  Result<uint8_t*> take(int64_t bytes, int64_t alignment, const char* what);

  std::vector<MappedMemory> blocks_;
  int64_t block_used_bytes_ = 0;    // of the last block
  std::vector<Stretch> stretches_;  // what is left to each worker
  int64_t used_bytes_ = 0;          // of all pieces
};

}  // namespace ringside::cpu
