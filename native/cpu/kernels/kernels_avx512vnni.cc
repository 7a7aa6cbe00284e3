// Owns: the kernels compiled for AVX-512 VNNI.
#include "cpu/kernels/kernels.h"

#if defined(__AVX512VNNI__)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"

namespace ringside::cpu {

const Kernels* avx512vnni_kernels() {
  static constexpr Kernels kKernels = kernel_table("avx512vnni", avx512_attention);
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* avx512vnni_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
