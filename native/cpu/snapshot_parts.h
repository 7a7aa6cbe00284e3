// Owns: a snapshot of the CPU backend as bytes and back: S, and the pages as they lie in memory.
// Must never: believe that bytes are numbers. A file can be damaged, and a kernel that meets NaN spreads it.
#pragma once

#include <memory>

#include "cpu/state.h"
#include "error.h"

namespace ringside::cpu {

int64_t state_part_bytes(const Shape& shape);

// A snapshot at `position`, which is checked, with S from `state` and one of `pages` for each begun 256 positions.
// kArgumentInvalid, kFileMalformed for numbers that are not finite, kOutOfMemory.
Result<std::unique_ptr<Snapshot>> import_snapshot(const void* model, const Shape& shape, rs_kv_format format,
                                                  int64_t position, const void* state, const void* const* pages);

}  // namespace ringside::cpu
