// Owns: the kernels of products with fp8 weights; no checkpoint has offsets beside them.
#include "cuda/kernels/product_launch.cuh"

namespace ringside::cuda {

template <>
Status launch_product_of<MatrixFormat::kFP8>(const ProductCall& call, cudaStream_t stream) {
  return launch_groups<MatrixFormat::kFP8, false>(call, stream);
}

}  // namespace ringside::cuda
