// Owns: asking the processor what it can do.
#include "cpu/isa.h"

#include <fstream>

namespace ringside::cpu {
namespace {

// Of every build, so that a name this machine cannot run is told apart from one that is no instruction set.
constexpr const char* kNames[] = {"plain",      "avx2", "avxvnni", "avx512",  "avx512vnni",
                                  "avx512bf16", "amx",  "neon",    "dotprod", "i8mm"};

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

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables = {plain_kernels()};
  // The processor is asked first: even the function that returns a table is compiled for its instruction set.
  if (runs_avx2() && avx2_kernels() != nullptr) tables.push_back(avx2_kernels());
  if (runs_avx512() && avx512_kernels() != nullptr) tables.push_back(avx512_kernels());
  return tables;
}

Result<const Kernels*> choose_kernels(const std::string& isa) {
  const std::vector<const Kernels*> tables = available_kernels();
  if (isa.empty()) return tables.back();
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
