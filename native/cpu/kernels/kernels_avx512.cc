// Owns: the kernels compiled for AVX-512 F, BW, VL and DQ.
#include "cpu/kernels/kernels.h"

#if defined(__AVX512F__)

#include "cpu/kernels/activation.h"
#include "cpu/kernels/attention.h"
#include "cpu/kernels/linear_attention.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/roofline.h"

namespace ringside::cpu {

const Kernels* avx512_kernels() {
  static constexpr Kernels kKernels = {
      "avx512", matmul_tile,   chunk_read,   chunk_commit,  key_block,   merge_key_block,
      silu,     silu_multiply, sigmoid_gate, multiply_peak, read_stream,
  };
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* avx512_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
