// Owns: the kernels of products with bf16 weights, which have neither groups nor scales.
#include "cuda/kernels/product_tile.cuh"

namespace ringside::cuda {

template <>
Status launch_product_of<MatrixFormat::kBF16>(const ProductCall& call, cudaStream_t stream) {
  return launch_rows<MatrixFormat::kBF16, kStepColumns, false>(call, stream);
}

}  // namespace ringside::cuda
