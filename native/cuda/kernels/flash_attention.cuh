// Owns: what reads keys and values of a softmax layer for many queries.
#pragma once

#include "cuda/kernels/attention_tile.cuh"
#include "cuda/model.h"
#include "error.h"

namespace ringside::cuda {

struct FlashCall {
  const bf16* queries;  // [rows, heads, 128], scaled so that scores are logarithms to base 2
  bf16* mixed;          // [rows, heads * 128]
  bf16* const* pages;
  int64_t layer_at;    // where the layer begins in a page
  int position, rows;  // the pages hold position + rows keys
  int heads, kv_heads;
};

// With mma.sync, on every card; with wgmma, on Hopper alone.
Status run_flash_attention(const FlashCall& call, cudaStream_t stream);
Status run_flash_attention_hopper(const FlashCall& call, cudaStream_t stream);

inline constexpr int kBlockRows = 128;

#if defined(__CUDACC__)

inline constexpr float kInfinity = __builtin_huge_valf();

// The rows of a block and the tokens they belong to.
struct BlockRows {
  int group, tokens, first_token, kv_head;

  __device__ __forceinline__ BlockRows(const FlashCall& call)
      : group(call.heads / call.kv_heads),
        tokens(kBlockRows / group),
        // The longest first: what is left at the end is then short.
        first_token((static_cast<int>(gridDim.y - 1 - blockIdx.y)) * tokens),
        kv_head(blockIdx.x) {}
  __device__ __forceinline__ int token(int row) const { return first_token + row / group; }
  __device__ __forceinline__ bool exists(const FlashCall& call, int row) const {
    return row < tokens * group && token(row) < call.rows;
  }
  // Of a row's channels in queries and in mixed alike.
  __device__ __forceinline__ int64_t offset(const FlashCall& call, int row) const {
    return (static_cast<int64_t>(token(row)) * call.heads + kv_head * group + row % group) * kHeadDim;
  }
};

#endif  // __CUDACC__

}  // namespace ringside::cuda
