// Owns: large blocks of memory straight from the operating system, zeroed, given back page by page when dropped.
// Must never: throw, or be used for small short-lived objects.
#pragma once

#include <cstdint>

#include "error.h"
#include "owned_memory.h"

namespace ringside {

// Memory of this length or more begins at a multiple of it and lies in huge pages, where the system has them.
inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// The smallest multiple of `unit` that is at least `bytes`.
inline constexpr int64_t rounded_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

struct SystemPages {
  // `what` names the purpose in the error when the system refuses.
  static Result<uint8_t*> take(int64_t bytes, const char* what);
  static void give_back(uint8_t* data, int64_t bytes);
};
using MappedMemory = OwnedMemory<SystemPages>;

}  // namespace ringside
