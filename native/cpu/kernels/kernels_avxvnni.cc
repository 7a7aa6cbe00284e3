// Owns: the kernels compiled for AVX-VNNI.
#include "cpu/kernels/kernels.h"

#if defined(__AVXVNNI__)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"

namespace ringside::cpu {

const Kernels* avxvnni_kernels() {
  static constexpr Kernels kKernels = kernel_table("avxvnni", avx2_attention);
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* avxvnni_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
