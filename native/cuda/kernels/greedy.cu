#include <algorithm>

#include "cuda/cuda_call.h"
#include "cuda/kernels/greedy.h"

namespace ringside::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kIdsOfBlock = 1024;  // a few loads of each thread, all on their way at once

// Larger for the larger logit and, of equal ones, the lower id; 0 for what may not be chosen.
__device__ uint64_t key_of(float logit, int32_t id) {
  if (!isfinite(logit)) return 0;
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // of the two zeros, the positive one
  const uint32_t order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{order} << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}

__global__ void find(const float* logits, int64_t stride, int32_t ids, uint64_t* keys) {
  const float* const row = logits + blockIdx.y * stride;
  const int32_t end = min(ids, static_cast<int32_t>((blockIdx.x + 1) * kIdsOfBlock));
  uint64_t best = 0;
  for (auto id = static_cast<int32_t>(blockIdx.x * kIdsOfBlock + threadIdx.x); id < end; id += kThreads) {
    best = max(best, key_of(row[id], id));
  }
  for (int distance = 16; distance > 0; distance /= 2) best = max(best, __shfl_xor_sync(~0u, best, distance));
  // The largest of all does not depend on who comes first.
  if (threadIdx.x % 32 == 0 && best != 0) {
    atomicMax(reinterpret_cast<unsigned long long*>(keys + blockIdx.y), static_cast<unsigned long long>(best));
  }
}

}  // namespace

Status find_likeliest(const float* logits, int64_t stride, int64_t rows, int32_t ids, uint64_t* keys,
                      cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>((ids + kIdsOfBlock - 1) / kIdsOfBlock), static_cast<unsigned>(rows));
  find<<<blocks, kThreads, 0, stream>>>(logits, stride, ids, keys);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
