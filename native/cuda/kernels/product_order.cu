// Owns: rows in the order in which wgmma walks their columns.
#include "cuda/cuda_call.h"
#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/product.h"

namespace ringside::cuda {
namespace {

// A warp a panel of 64 columns, a lane a word: reads and writes are of whole lines.
__global__ void __launch_bounds__(256) order_kernel(MatrixFormat format, const bf16* x, int64_t stride, int panels,
                                                    int64_t all, bf16* out, int64_t out_stride) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (at >= all) return;
  const int64_t row = at / panels, panel = at % panels;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t word = __ldg(reinterpret_cast<const uint32_t*>(x + row * stride + panel * 64) + lane);
  reinterpret_cast<uint32_t*>(out + row * out_stride + panel * 64)[ordered_word(format, lane)] = word;
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
  order_kernel<<<static_cast<unsigned>((all + 7) / 8), 256, 0, stream>>>(
      format, x.values, x.stride, static_cast<int>(panels), all, out, out_stride);
  RS_LAUNCHED();
  return Unit{};
}

}  // namespace ringside::cuda
