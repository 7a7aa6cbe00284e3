// Owns: the kernels compiled for AVX-512 VNNI and BF16.
#include "cpu/kernels/kernels.h"

#if defined(__AVX512BF16__)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"

namespace ringside::cpu {

const Kernels* avx512bf16_kernels() {
  static constexpr Kernels kKernels = kernel_table("avx512bf16", avx512bf16_attention);
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* avx512bf16_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
