// Owns: the kernels compiled for the baseline of the target.
#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"

namespace ringside::cpu {

const Kernels* plain_kernels() {
  static constexpr Kernels kKernels = kernel_table("plain", plain_attention);
  return &kKernels;
}

}  // namespace ringside::cpu
