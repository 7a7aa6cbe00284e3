// Owns: the attention kernels compiled for AVX-512 F, BW, VL and DQ.
#include "cpu/kernels/attention_kernels.h"

#if defined(__AVX512F__)

#include "cpu/kernels/attention_table.h"

namespace ringside::cpu {

const AttentionKernels* avx512_attention() {
  static constexpr AttentionKernels kKernels = attention_table("avx512");
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const AttentionKernels* avx512_attention() { return nullptr; }

}  // namespace ringside::cpu

#endif
