#include "cpu/memory.h"

#include <algorithm>
#include <utility>

namespace ringside::cpu {
namespace {

constexpr int64_t kArenaBlockBytes = int64_t{256} << 20;

}  // namespace

Result<uint8_t*> Arena::allocate(int64_t bytes, const char* what) {
  const int64_t rounded = (bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
  if (blocks_.empty() || block_used_bytes_ + rounded > blocks_.back().bytes()) {
    RS_TRY(MappedMemory block, MappedMemory::allocate(std::max(rounded, kArenaBlockBytes), what));
    blocks_.push_back(std::move(block));
    block_used_bytes_ = 0;
  }
  uint8_t* piece = blocks_.back().data() + block_used_bytes_;
  block_used_bytes_ += rounded;
  used_bytes_ += rounded;
  return piece;
}

}  // namespace ringside::cpu
