// Owns: the kernels of products with bf16 weights, which have neither groups nor scales.
#include "cuda/kernels/product_launch.cuh"

namespace ringside::cuda {

template <>
Status launch_product_of<MatrixFormat::kBF16>(const ProductCall& call, cudaStream_t stream) {
  return launch_kernel<MatrixFormat::kBF16, 128, false>(call, stream);
}

}  // namespace ringside::cuda
