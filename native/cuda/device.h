// Owns: which of the machine's GPUs a model is on, and how much memory there is.
#pragma once

#include <cstdint>

#include "error.h"

namespace ringside::cuda {

// `wanted` as rs_load_options.device_index; with -1 of those that the kernels run on. kArgumentInvalid names the range.
Result<int32_t> choose_device(int32_t wanted);

// The calls of this thread go to the device from now on.
Status use_device(int32_t device);

struct FreeMemory {
  int64_t free_bytes = 0, total_bytes = 0;
  // What may be taken: others use the memory too, and the driver itself needs some.
  int64_t usable_bytes() const;
};

// Leaves no context on the device where there was none.
Result<FreeMemory> device_memory(int32_t device);
// Of the system, or of the group of processes that this one may share memory with, whichever is less.
Result<FreeMemory> host_memory();

}  // namespace ringside::cuda
