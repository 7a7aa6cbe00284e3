// Owns: rows in the order in which wgmma walks their columns.
#include "cuda/cuda_call.h"
#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/product.h"

namespace ringside::cuda {
namespace {

constexpr int kPanelsOfWarp = 4;  // read before the first is written

// Panels of 64 columns, a lane a word of each: reads and writes are of whole lines.
__global__ void __launch_bounds__(256) order_kernel(MatrixFormat format, const bf16* x, int64_t stride, int panels,
                                                    int64_t all, bf16* out, int64_t out_stride) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32) * kPanelsOfWarp;
  const int lane = static_cast<int>(threadIdx.x) % 32, to = ordered_word(format, lane);
  int64_t row = first / panels, panel = first % panels;
  uint32_t words[kPanelsOfWarp];
  uint32_t* places[kPanelsOfWarp];
#pragma unroll
  for (int i = 0; i < kPanelsOfWarp; i++) {
    if (first + i < all) {
      words[i] = __ldg(reinterpret_cast<const uint32_t*>(x + row * stride + panel * 64) + lane);
      places[i] = reinterpret_cast<uint32_t*>(out + row * out_stride + panel * 64) + to;
    }
    if (++panel == panels) panel = 0, row++;
  }
#pragma unroll
  for (int i = 0; i < kPanelsOfWarp; i++) {
    if (first + i < all) *places[i] = words[i];
  }
}

}  // namespace

Result<bool> products_want_order() {
  cudaFuncAttributes code{};
  RS_CUDA(cudaFuncGetAttributes(&code, order_kernel));
  return code.ptxVersion == 90 && code.binaryVersion == 90;  // as launch_kernel decides
}

Status order_rows(MatrixFormat format, const ReadRows& x, int64_t columns, bf16* out, int64_t out_stride,
                  cudaStream_t stream) {
  const int64_t panels = columns / 64, all = x.count * panels;
  if (all == 0) return Unit{};
  order_kernel<<<static_cast<unsigned>((all + 8 * kPanelsOfWarp - 1) / (8 * kPanelsOfWarp)), 256, 0, stream>>>(
      format, x.values, x.stride, static_cast<int>(panels), all, out, out_stride);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
