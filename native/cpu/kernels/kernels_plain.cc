// Owns: the kernels compiled for the baseline of the target.
#include "cpu/kernels/activation.h"
#include "cpu/kernels/attention.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_attention.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/roofline.h"

namespace ringside::cpu {

const Kernels* plain_kernels() {
  static constexpr Kernels kKernels = {
      "plain", matmul_tile,   chunk_read,   chunk_commit,  key_block,   merge_key_block,
      silu,    silu_multiply, sigmoid_gate, multiply_peak, read_stream,
  };
  return &kKernels;
}

}  // namespace ringside::cpu
