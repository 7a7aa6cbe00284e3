// Owns: what one launch of a product is told, dense or grouped by expert, and the door to the kernels.
#pragma once

#include "cuda/kernels/read_products.h"

namespace ringside::cuda {

enum class Epilogue : int32_t {
  kStoreBF16,  // out bf16 [rows, outputs]
  kStoreF32,   // out fp32 [rows, outputs]
  kAddF32,     // the same, added to what is there
  kSiluBF16,   // out bf16 [rows, outputs / 2] = silu(gate) * up, see DeviceMlp
};

// Rows [first, first + rows) of the lists, all of one matrix of the stack.
struct RowTile {
  int32_t matrix, first, rows;
};

// Plain data: kernels take it by value.
struct ProductCall {
  DeviceStack w;
  const bf16* x;
  int64_t x_stride;
  int64_t rows;  // of the lists; dense: of x
  // Dense: null. Grouped: at most max_tiles tiles of at most tile_rows rows, *tile_count of them, all made on the
  // device.
  const RowTile* tiles;
  const int32_t* tile_count;
  int32_t max_tiles, tile_rows;
  const int32_t* gather;  // row i of the lists is row gather[i] of x; null: row i
  bool x_ordered;         // rows of x lie in the order of k of w's format, see order_rows
  bool out_ordered;       // kSiluBF16: so shall those of out, for a matrix of format out_order
  MatrixFormat out_order;
  Epilogue epilogue;
  void* out;
  int64_t out_stride;
};

// Rows of a tile that suit lists of about `rows` rows.
int32_t product_tile_rows(const DeviceMatrix& w, int64_t rows, bool warpgroups);
Status launch_product(const ProductCall& call, cudaStream_t stream);

// One translation unit a format.
template <MatrixFormat kFormat>
Status launch_product_of(const ProductCall& call, cudaStream_t stream);

}  // namespace ringside::cuda
