// Owns: the attention kernels compiled for the baseline of the target.
#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/attention_table.h"

namespace ringside::cpu {

const AttentionKernels* plain_attention() {
  static constexpr AttentionKernels kKernels = attention_table("plain");
  return &kKernels;
}

}  // namespace ringside::cpu
