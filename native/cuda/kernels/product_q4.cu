// Owns: the kernels of products with Q4 weights.
#include "cuda/kernels/product_launch.cuh"

namespace ringside::cuda {

template <>
Status launch_product_of<MatrixFormat::kQ4>(const ProductCall& call, cudaStream_t stream) {
  return call.w.first.offsets != nullptr ? launch_groups<MatrixFormat::kQ4, true>(call, stream)
                                         : launch_groups<MatrixFormat::kQ4, false>(call, stream);
}

}  // namespace ringside::cuda
