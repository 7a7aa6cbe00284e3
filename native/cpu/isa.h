// Owns: the choice of the instruction set whose kernels run, and the name of this processor.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "error.h"

namespace ringside::cpu {

// Every table that this build has and this processor can run, slowest first.
std::vector<const Kernels*> available_kernels();

// False for a table of optional instructions that has never run on hardware, only under an emulator.
bool runs_by_default(const Kernels& table);

// The best available table that runs by default for "", else the named one: plain, avx2, avxvnni, avx512, avx512vnni,
// avx512bf16, amx, neon, dotprod or i8mm. kBackendUnavailable: not on this machine; kArgumentInvalid: no such name.
Result<const Kernels*> choose_kernels(const std::string& isa);

// As the system names it, for example "Intel(R) Xeon(R) Processor".
std::string processor_name();

}  // namespace ringside::cpu
