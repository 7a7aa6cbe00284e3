// Owns: the kernels of products with fp8 weights; no checkpoint has offsets beside them.
#include "cuda/kernels/product_launch.cuh"

namespace ringside::cuda {

template <>
Status launch_product_of<MatrixFormat::kFP8>(const ProductCall& call, cudaStream_t stream) {
  switch (call.w.first.group_columns) {
    case 32:
      return launch_kernel<MatrixFormat::kFP8, 32, false>(call, stream);
    case 64:
      return launch_kernel<MatrixFormat::kFP8, 64, false>(call, stream);
    default:
      return launch_kernel<MatrixFormat::kFP8, 128, false>(call, stream);
  }
}

}  // namespace ringside::cuda
