// Owns: the calls to the operating system that map and unmap memory.
#include "cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <new>
#include <string>

namespace ringside::cpu {
namespace {

constexpr int64_t kArenaBlockBytes = int64_t{256} << 20;
// A multiple of every ordinary page of every system.
constexpr int64_t kPageBytes = int64_t{64} << 10;

int64_t rounded_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

Error out_of_memory(const char* what, int64_t bytes) {
  return Error{ErrorKind::kOutOfMemory, what, std::to_string(bytes) + " bytes", "refused by the system"};
}

}  // namespace

Result<MappedMemory> MappedMemory::allocate(int64_t bytes, const char* what) {
  MappedMemory memory;
  if (bytes <= 0) return memory;
  // A huge page begins at a multiple of its length. A mapping may not, so a longer one is made and its ends given back.
  const int64_t slack_bytes = bytes >= kHugePageBytes ? kHugePageBytes : 0;
  if (bytes > std::numeric_limits<int64_t>::max() - 2 * kHugePageBytes) return out_of_memory(what, bytes);
  const int64_t wanted_bytes = rounded_up(bytes, kPageBytes);
  const size_t mapped_bytes = static_cast<size_t>(wanted_bytes + slack_bytes);
  void* mapped = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return out_of_memory(what, bytes);
  uint8_t* address = static_cast<uint8_t*>(mapped);
  if (slack_bytes > 0) {
    const int64_t begin = static_cast<int64_t>(reinterpret_cast<uintptr_t>(address));
    const int64_t head_bytes = rounded_up(begin, kHugePageBytes) - begin;
    if (head_bytes > 0) munmap(address, static_cast<size_t>(head_bytes));
    address += head_bytes;
    if (head_bytes < slack_bytes) munmap(address + wanted_bytes, static_cast<size_t>(slack_bytes - head_bytes));
#ifdef MADV_HUGEPAGE
    // Small pages cost four times as much when they are first written, and some of the speed of streaming. Advice only.
    (void)madvise(address, static_cast<size_t>(wanted_bytes), MADV_HUGEPAGE);
#endif
  }
  memory.data_ = address;
  memory.bytes_ = bytes;
  return memory;
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(rounded_up(bytes_, kPageBytes)));
}

Result<uint8_t*> Arena::allocate(int64_t bytes, const char* what) {
  const int64_t rounded = rounded_up(bytes, kCacheLineBytes);
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
