// Owns: the calls to the operating system that map and unmap memory.
#include "cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <string>

namespace ringside::cpu {
namespace {

constexpr int64_t kArenaBlockBytes = int64_t{64} << 20;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

Error out_of_memory(const char* what, int64_t bytes) {
  return Error{ErrorKind::kOutOfMemory, what, std::to_string(bytes) + " bytes", "refused by the system"};
}

}  // namespace

Result<MappedMemory> MappedMemory::allocate(int64_t bytes, const char* what) {
  MappedMemory memory;
  if (bytes <= 0) return memory;
  void* address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return out_of_memory(what, bytes);
#ifdef MADV_HUGEPAGE
  // Streaming weights through 4 KiB pages spends a good part of the time in address translation. Advice only.
  if (bytes >= kHugePageBytes) (void)madvise(address, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  memory.data_ = static_cast<uint8_t*>(address);
  memory.bytes_ = bytes;
  return memory;
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

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
