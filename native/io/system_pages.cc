// Owns: the calls to the operating system that map and unmap memory.
#include "io/system_pages.h"

#include <sys/mman.h>

#include <limits>
#include <string>

namespace ringside {
namespace {

// A multiple of every ordinary page of every system.
constexpr int64_t kPageBytes = int64_t{64} << 10;

Error out_of_memory(const char* what, int64_t bytes) {
  return Error{ErrorKind::kOutOfMemory, what, std::to_string(bytes) + " bytes", "refused by the system"};
}

}  // namespace

Result<uint8_t*> SystemPages::take(int64_t bytes, const char* what) {
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
  return address;
}

void SystemPages::give_back(uint8_t* data, int64_t bytes) {
  munmap(data, static_cast<size_t>(rounded_up(bytes, kPageBytes)));
}

}  // namespace ringside
