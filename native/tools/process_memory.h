// Owns: what this process holds in memory, own pages and pages of mapped files told apart.
#pragma once

#include <cstdint>

namespace ringside::tools {

struct ProcessMemory {
  int64_t resident_bytes = 0;
  int64_t anonymous_bytes = 0;  // the process's own
  int64_t file_bytes = 0;       // of mapped files: the system can drop them at any time
  int64_t peak_bytes = 0;       // of resident_bytes, since the process began or the last forget_peak_memory()
};
// Zeros where the system does not say.
ProcessMemory process_memory();
void forget_peak_memory();

}  // namespace ringside::tools
