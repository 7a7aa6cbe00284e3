// Owns: the products of many rows of activations with weights, for the read path. Bits of a row depend on the row and
// the weights alone: columns ascend in one order, whatever the number of rows and however they are cut into blocks.
#pragma once

#include "cuda/model.h"
#include "error.h"

namespace ringside::cuda {

// Rows of activations: row r at values + r * stride, `stride` in numbers, a multiple of 8; values at 16 bytes.
struct ReadRows {
  const bf16* values;
  int64_t stride;
  int64_t count;
  bool ordered = false;  // by order_rows, for the format of the matrix
};

// Whether products are faster with rows in the order in which the tensor cores walk columns. Depends on the card.
Result<bool> products_want_order();
// out[r] = the first `columns` numbers of x[r] in that order for matrices of `format`: where several products read the
// same rows, once for all of them. Not in place.
Status order_rows(MatrixFormat format, const ReadRows& x, int64_t columns, bf16* out, int64_t out_stride,
                  cudaStream_t stream);

// out[r][n] = Σ_k x[r][k] w[n][k], accumulated in fp32 on the tensor cores.
Status multiply_rows(const DeviceMatrix& w, const ReadRows& x, bf16* out, int64_t out_stride, cudaStream_t stream);
Status multiply_rows(const DeviceMatrix& w, const ReadRows& x, float* out, int64_t out_stride, cudaStream_t stream);
// sum[r][n] = sum[r][n] + product
Status add_product(const DeviceMatrix& w, const ReadRows& x, float* sum, int64_t sum_stride, cudaStream_t stream);
// out[r][c] = silu(gate) * up, of one MLP: [rows, width]
Status multiply_inner(const DeviceMatrix& gate_up, const ReadRows& x, bf16* out, int64_t out_stride,
                      cudaStream_t stream);

}  // namespace ringside::cuda
