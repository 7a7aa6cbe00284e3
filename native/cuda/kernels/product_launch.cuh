// Owns: the choice between the two kernels of a product. It depends on the card alone, so that bits do too.
#pragma once

#include "cuda/kernels/product_tile.cuh"
#include "cuda/kernels/product_warpgroup.cuh"

namespace ringside::cuda {

template <MatrixFormat kFormat, int kGroupColumns, bool kOffsets>
Status launch_kernel(const ProductCall& call, cudaStream_t stream) {
  int device = 0, multiprocessors = 0;
  cudaFuncAttributes code{};
  RS_CUDA(cudaGetDevice(&device));
  RS_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  // Code for sm_90a exists only as such; on every other card, and where it was not built, this kernel is empty.
  RS_CUDA(cudaFuncGetAttributes(&code, warpgroup_kernel<kFormat, kGroupColumns, kOffsets>));
  if (code.ptxVersion == 90 && code.binaryVersion == 90) {
    return launch_warpgroups<kFormat, kGroupColumns, kOffsets>(call, multiprocessors, stream);
  }
  if (call.x_ordered || call.out_ordered) {
    return Error{ErrorKind::kArgumentInvalid, "order of a product's rows", "as they are, on this card",
                 "the order of k"};
  }
  return launch_rows<kFormat, kGroupColumns, kOffsets>(call, stream);
}

template <MatrixFormat kFormat, bool kOffsets>
Status launch_groups(const ProductCall& call, cudaStream_t stream) {
  switch (call.w.first.group_columns) {
    case 32:
      return launch_kernel<kFormat, 32, kOffsets>(call, stream);
    case 64:
      return launch_kernel<kFormat, 64, kOffsets>(call, stream);
    default:
      return launch_kernel<kFormat, 128, kOffsets>(call, stream);
  }
}

}  // namespace ringside::cuda
