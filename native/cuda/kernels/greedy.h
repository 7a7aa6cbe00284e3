// Owns: the likeliest id of rows of logits, found where the logits are: of 157,184 numbers the bus carries one.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "error.h"

namespace ringside::cuda {

// keys[row] becomes the larger of itself and the key of that row's likeliest id among the first `ids`; so it is zero
// before. logits: [rows, stride]. Equal logits go to the lower id, and what is not finite is never chosen, as in
// model/sampler.h.
Status find_likeliest(const float* logits, int64_t stride, int64_t rows, int32_t ids, uint64_t* keys,
                      cudaStream_t stream);

// -1: no logit was finite.
inline int32_t likeliest_of(uint64_t key) {
  return key == 0 ? -1 : static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

}  // namespace ringside::cuda
