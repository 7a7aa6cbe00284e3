// Owns: what the read path does with a row alone: embedding, norms, gates.
#pragma once

#include "cuda/kernels/read_products.h"

namespace ringside::cuda {

// residual[r] = embedding[tokens[r]] (device array of ids, checked before), fp32 [rows, hidden]
Status embed_rows(const DeviceModel& model, const int32_t* tokens, int64_t rows, float* residual, cudaStream_t stream);
// out[r] = bf16(rmsnorm(residual[r]) * weight), [rows, hidden]
Status norm_rows(const float* residual, const float* weight, float eps, int64_t hidden, int64_t rows, bf16* out,
                 int64_t out_stride, cudaStream_t stream);
// out[r] = [x_hi | x_lo | x_hi], 3 * hidden numbers: x = x_hi + x_lo to 2^-16
Status norm_rows_split(const float* residual, const float* weight, float eps, int64_t hidden, int64_t rows, bf16* out,
                       int64_t out_stride, cudaStream_t stream);
// out[r] = grouped rmsnorm(mixed[r]; weight, norm_groups) * sigmoid(gate[r]); all [rows, width]
Status gate_rows(const float* mixed, const bf16* gate, int64_t gate_stride, const float* weight, float eps,
                 int64_t norm_groups, int64_t width, int64_t rows, bf16* out, int64_t out_stride, cudaStream_t stream);

}  // namespace ringside::cuda
