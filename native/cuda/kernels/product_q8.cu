// Owns: the kernels of products with Q8 weights.
#include "cuda/kernels/product_launch.cuh"

namespace ringside::cuda {

template <>
Status launch_product_of<MatrixFormat::kQ8>(const ProductCall& call, cudaStream_t stream) {
  return call.w.first.offsets != nullptr ? launch_groups<MatrixFormat::kQ8, true>(call, stream)
                                         : launch_groups<MatrixFormat::kQ8, false>(call, stream);
}

}  // namespace ringside::cuda
