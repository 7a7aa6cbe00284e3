// Owns: the kernels for ARM's SDOT (ARMv8.2's optional, ARMv8.4's own). All but the coded product are NEON's.
#include "cpu/kernels/kernels.h"

#if defined(RS_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include "cpu/kernels/matmul_coded_sdot.h"

namespace ringside::cpu {

const Kernels* dotprod_kernels() {
  static const Kernels kKernels = [] {
    Kernels table = *neon_kernels();
    table.isa = "dotprod";
    table.matmul_coded = matmul_coded_arm<SdotMachine>;
    table.multiply_int8_peak = multiply_int8_peak_arm<SdotMachine>;
    return table;
  }();
  return &kKernels;
}

}  // namespace ringside::cpu

#else

namespace ringside::cpu {

const Kernels* dotprod_kernels() { return nullptr; }

}  // namespace ringside::cpu

#endif
