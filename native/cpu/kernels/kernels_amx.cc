// Owns: the kernels for AMX: those of AVX-512 VNNI and BF16, and the products of many rows in tiles.
#include "cpu/kernels/kernels.h"

#if defined(__AMX_INT8__)

#include "cpu/kernels/attention_kernels.h"
#include "cpu/kernels/kernel_table.h"
#include "cpu/kernels/matmul_coded_amx.h"

namespace ringside::cpu {

const Kernels* amx_kernels() {
  static constexpr Kernels kKernels = [] {
    Kernels table = kernel_table("amx", amx_attention);
    table.matmul_coded = matmul_coded_amx;
    return table;
  }();
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* amx_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
