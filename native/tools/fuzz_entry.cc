// Owns: the entry point of one fuzzer; the build says which target it is.
#include <cstddef>
#include <cstdint>

#include "tools/fuzz_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Accepting and refusing are both fine; a crash, a hang, a leak or a broken property is not.
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)ringside::tools::RS_FUZZ_TARGET(bytes);
  return 0;
}
