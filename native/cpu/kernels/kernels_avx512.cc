// Owns: the kernels compiled for AVX-512 F, BW, VL and DQ.
#include "cpu/kernels/kernels.h"

#if defined(__AVX512F__)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"

namespace ringside::cpu {

const Kernels* avx512_kernels() {
  static constexpr Kernels kKernels = kernel_table("avx512", avx512_attention);
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* avx512_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
