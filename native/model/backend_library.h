// Owns: the way to the CUDA backend: a shared library of its own beside this code, opened only where a driver runs it.
// Must never: need a header of CUDA, or be linked against any library of it.
#pragma once

#include "../error.h"
#include "backend.h"
#include "device_rates.h"

namespace ringside {

// Looks once in a process. kBackendUnavailable says what is missing: the driver, one that is new enough (both
// versions), a device, or the library.
Result<const rs_backend*> open_cuda_backend();

// What the card can do at best, for benchmarks. Fails as open_cuda_backend does, and for want of memory.
Result<rs_device_rates> measure_cuda_rates();

}  // namespace ringside
