// Owns: how many processor cores this process may use.
#pragma once

#include <optional>
#include <string>

namespace ringside::cpu {

// Physical cores that this process may run on, and no more than its container pays for; at least 1.
int physical_cores();

// Whole cores, at least 1, that the control groups named in `membership` (the text of /proc/self/cgroup) and those
// above them may use, version 2 or 1 mounted at `root`. Nothing: no limit.
std::optional<int> quota_cores(const std::string& membership, const std::string& root);

}  // namespace ringside::cpu
