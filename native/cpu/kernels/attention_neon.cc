// Owns: the attention kernels compiled for NEON.
#include "cpu/kernels/attention_kernels.h"

#if defined(RS_NEON)

#include "cpu/kernels/attention_table.h"

namespace ringside::cpu {

const AttentionKernels* neon_attention() {
  static constexpr AttentionKernels kKernels = attention_table("neon");
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const AttentionKernels* neon_attention() { return nullptr; }

}  // namespace ringside::cpu

#endif
