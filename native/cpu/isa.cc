// Owns: asking the processor what it can do.
#include "cpu/isa.h"

#include <algorithm>
#include <fstream>

#include "cpu/isa_arm.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace ringside::cpu {
namespace {

// Of every build, so that a name this machine cannot run is told apart from one that is no instruction set.
constexpr const char* kNames[] = {"plain",      "avx2", "avxvnni", "avx512",  "avx512vnni",
                                  "avx512bf16", "amx",  "neon",    "dotprod", "i8mm"};

// Tests have run ARM's tables under an emulator only, never on hardware. These two have instructions that a processor
// may lack, so nobody gets them without asking by name. NEON no 64-bit ARM lacks: the compiler puts it everywhere.
constexpr const char* kOnlyEmulated[] = {"dotprod", "i8mm"};

bool runs_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool runs_avx512() {
#if defined(__x86_64__)
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

bool runs_avxvnni() {
#if defined(__x86_64__)
  constexpr unsigned kAvxVnni = 1u << 4;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return runs_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvxVnni) != 0;
#else
  return false;
#endif
}

bool runs_avx512vnni() {
#if defined(__x86_64__)
  return runs_avx512() && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool runs_avx512bf16() {
#if defined(__x86_64__)
  return runs_avx512vnni() && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// The processor has tiles, the system saves them, and this process may use them: Linux grants that on request, once for
// all threads.
bool runs_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  constexpr unsigned kTileData = 18;  // number of the tiles' part of the saved state
  constexpr long kRequestPermission = 0x1023;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!runs_avx512bf16() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & (kBf16 | kTile | kInt8)) != (kBf16 | kTile | kInt8)) return false;
  static const bool kGranted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return kGranted;
#else
  return false;
#endif
}

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables = {plain_kernels()};
  // The processor is asked first: even the function that returns a table is compiled for its instruction set.
  if (runs_avx2() && avx2_kernels() != nullptr) tables.push_back(avx2_kernels());
  if (runs_avxvnni() && avxvnni_kernels() != nullptr) tables.push_back(avxvnni_kernels());
  if (runs_avx512() && avx512_kernels() != nullptr) tables.push_back(avx512_kernels());
  if (runs_avx512vnni() && avx512vnni_kernels() != nullptr) tables.push_back(avx512vnni_kernels());
  if (runs_avx512bf16() && avx512bf16_kernels() != nullptr) tables.push_back(avx512bf16_kernels());
  if (runs_amx() && amx_kernels() != nullptr) tables.push_back(amx_kernels());
  const ArmFeatures arm = arm_features();
  if (neon_kernels() != nullptr) tables.push_back(neon_kernels());
  if (arm.dotprod && dotprod_kernels() != nullptr) tables.push_back(dotprod_kernels());
  if (arm.dotprod && arm.i8mm && i8mm_kernels() != nullptr) tables.push_back(i8mm_kernels());
  return tables;
}

bool runs_by_default(const Kernels& table) {
  return std::none_of(std::begin(kOnlyEmulated), std::end(kOnlyEmulated),
                      [&](const char* name) { return std::string(name) == table.isa; });
}

Result<const Kernels*> choose_kernels(const std::string& isa) {
  const std::vector<const Kernels*> tables = available_kernels();
  if (isa.empty()) {
    return *std::find_if(tables.rbegin(), tables.rend(), [](const Kernels* table) { return runs_by_default(*table); });
  }
  std::string available;
  for (const Kernels* table : tables) {
    if (isa == table->isa) return table;
    available += (available.empty() ? "" : ", ") + std::string(table->isa);
  }
  std::string known;
  for (const char* name : kNames) {
    if (isa == name) return Error{ErrorKind::kBackendUnavailable, "instruction set", available, isa};
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return Error{ErrorKind::kArgumentInvalid, "instruction set", known, isa};
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
#if defined(__x86_64__)
  return "x86-64 processor";
#elif defined(__aarch64__)
  return "ARM64 processor";
#else
  return "processor";
#endif
}

}  // namespace ringside::cpu
