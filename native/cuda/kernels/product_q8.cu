// Owns: the kernels of products with Q8 weights.
#include "cuda/kernels/product_launch.cuh"

namespace ringside::cuda {
namespace {

template <bool kOffsets>
Status launch_group(const ProductCall& call, cudaStream_t stream) {
  switch (call.w.first.group_columns) {
    case 32:
      return launch_kernel<MatrixFormat::kQ8, 32, kOffsets>(call, stream);
    case 64:
      return launch_kernel<MatrixFormat::kQ8, 64, kOffsets>(call, stream);
    default:
      return launch_kernel<MatrixFormat::kQ8, 128, kOffsets>(call, stream);
  }
}

}  // namespace

template <>
Status launch_product_of<MatrixFormat::kQ8>(const ProductCall& call, cudaStream_t stream) {
  return call.w.first.offsets != nullptr ? launch_group<true>(call, stream) : launch_group<false>(call, stream);
}

}  // namespace ringside::cuda
