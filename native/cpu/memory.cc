#include "cpu/memory.h"

#include <algorithm>
#include <utility>

namespace ringside::cpu {
namespace {

constexpr int64_t kArenaBlockBytes = int64_t{256} << 20;
// What a worker takes at once, and the largest piece that comes from it. What stays unused at a stretch's end is less
// than that, and of it only what shares a huge page with the last piece takes memory.
constexpr int64_t kStretchBytes = int64_t{64} << 20;
constexpr int64_t kSmallPieceBytes = int64_t{4} << 20;

}  // namespace

Result<uint8_t*> Arena::allocate(int64_t bytes, const char* what, int worker) {
  const int64_t rounded = rounded_up(bytes, kCacheLineBytes);
  used_bytes_ += rounded;
  if (rounded > kSmallPieceBytes) return take(rounded, kCacheLineBytes, what);
  if (stretches_.size() <= static_cast<size_t>(worker)) stretches_.resize(static_cast<size_t>(worker) + 1);
  Stretch& stretch = stretches_[static_cast<size_t>(worker)];
  if (rounded > stretch.bytes) {
    RS_TRY(stretch.begin, take(kStretchBytes, kHugePageBytes, what));
    stretch.bytes = kStretchBytes;
  }
  stretch.bytes -= rounded;
  return std::exchange(stretch.begin, stretch.begin + rounded);
}

Result<uint8_t*> Arena::take(int64_t bytes, int64_t alignment, const char* what) {
  block_used_bytes_ = rounded_up(block_used_bytes_, alignment);
  if (blocks_.empty() || block_used_bytes_ + bytes > blocks_.back().bytes()) {
    RS_TRY(MappedMemory block, MappedMemory::allocate(std::max(bytes, kArenaBlockBytes), what));
    blocks_.push_back(std::move(block));
    block_used_bytes_ = 0;
  }
  uint8_t* piece = blocks_.back().data() + block_used_bytes_;
  block_used_bytes_ += bytes;
  return piece;
}

}  // namespace ringside::cpu
