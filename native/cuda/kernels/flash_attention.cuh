// Owns: what reads keys and values of a softmax layer for many queries.
#pragma once

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

Status run_flash_attention(const FlashCall& call, cudaStream_t stream);

}  // namespace ringside::cuda
