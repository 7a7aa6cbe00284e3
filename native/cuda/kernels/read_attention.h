// Owns: attention of the read path, linear and softmax, with what it leaves in the session.
// Bits of a row depend on the tokens before it alone, not on where the slab began.
#pragma once

#include "cuda/kernels/read_products.h"

namespace ringside::cuda {

// One layer of a slab: rows are the positions session.position .. + rows - 1. `qkv`: as multiplied, q, k and v before
// norm and rotation, row r at qkv + r * qkv_stride: [heads * 128 | k | v].
struct ReadAttention {
  const DeviceModel* model;
  const DeviceLayer* layer;
  const bf16* qkv;
  int64_t qkv_stride;
  int64_t rows;
  SessionView session;
  void* scratch;
};

int64_t read_attention_scratch_bytes(const DeviceModel& model, int64_t rows);

// mixed [rows, width] fp32 = what specification 3.2 calls o, before grouped norm and gate. Reads session.s and the open
// rows; writes the state at the last chunk boundary of position + rows and the open rows behind it to `next` (which may
// not be the session's own memory), so that a slab that is cancelled later has changed nothing.
Status read_linear_attention(const ReadAttention& call, const SessionView& next, float* mixed, cudaStream_t stream);
// mixed [rows, width] bf16. Appends keys and values to the session's pages.
Status read_softmax_attention(const ReadAttention& call, bf16* mixed, cudaStream_t stream);

}  // namespace ringside::cuda
