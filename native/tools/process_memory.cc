#include "tools/process_memory.h"

#include <fstream>
#include <sstream>
#include <string>

namespace ringside::tools {

ProcessMemory process_memory() {
  ProcessMemory memory;
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kilobytes = 0;
    if (!(words >> name >> kilobytes)) continue;
    const int64_t bytes = kilobytes * 1024;
    if (name == "VmHWM:") memory.peak_bytes = bytes;
    if (name == "VmRSS:") memory.resident_bytes = bytes;
    if (name == "RssAnon:") memory.anonymous_bytes = bytes;
    if (name == "RssFile:" || name == "RssShmem:") memory.file_bytes += bytes;
  }
  return memory;
}

void forget_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace ringside::tools
