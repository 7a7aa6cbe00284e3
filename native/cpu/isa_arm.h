// Owns: asking the system which optional instructions a 64-bit ARM processor has. NEON is not optional.
#pragma once

namespace ringside::cpu {

struct ArmFeatures {
  bool dotprod = false;  // SDOT
  bool i8mm = false;     // SMMLA
};

// Nothing on other processors and on systems that cannot be asked.
ArmFeatures arm_features();

}  // namespace ringside::cpu
