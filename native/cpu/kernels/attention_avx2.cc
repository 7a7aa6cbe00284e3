// Owns: the attention kernels compiled for AVX2 and FMA.
#include "cpu/kernels/attention_kernels.h"

#if defined(__AVX2__)

#include "cpu/kernels/attention_table.h"

namespace ringside::cpu {

const AttentionKernels* avx2_attention() {
  static constexpr AttentionKernels kKernels = attention_table("avx2");
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const AttentionKernels* avx2_attention() { return nullptr; }

}  // namespace ringside::cpu

#endif
