// Owns: the kernels compiled for AVX2 and FMA.
#include "cpu/kernels/kernels.h"

#if defined(__AVX2__)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"

namespace ringside::cpu {

const Kernels* avx2_kernels() {
  static constexpr Kernels kKernels = kernel_table("avx2", avx2_attention);
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* avx2_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
