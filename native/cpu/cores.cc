// Owns: the questions to the system: affinity, hyper-threads of one core, the quota of control groups.
#include "cpu/cores.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace ringside::cpu {
namespace {

// Cores of one quota; a negative quota and one without a period are none.
std::optional<int> whole_cores(int64_t quota_us, int64_t period_us) {
  if (quota_us <= 0 || period_us <= 0) return std::nullopt;
  return static_cast<int>(std::clamp<int64_t>(quota_us / period_us, 1, 1 << 16));
}

// Version 2: "max 100000" or "150000 100000".
std::optional<int> read_version_2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  int64_t quota_us = 0;
  int64_t period_us = 0;
  if (!(file >> quota_us >> period_us)) return std::nullopt;
  return whole_cores(quota_us, period_us);
}

std::optional<int> read_version_1(const std::string& folder) {
  std::ifstream quota(folder + "/cpu.cfs_quota_us");
  std::ifstream period(folder + "/cpu.cfs_period_us");
  int64_t quota_us = 0;
  int64_t period_us = 0;
  if (!(quota >> quota_us) || !(period >> period_us)) return std::nullopt;
  return whole_cores(quota_us, period_us);
}

// A group is bound by every group above it. Inside a container the named path may lie outside what is mounted; then
// only the mounted root says anything.
template <class Read>
std::optional<int> least_upwards(const std::string& root, std::string path, const Read& read) {
  std::optional<int> least;
  for (;;) {
    const std::optional<int> here = read(root + path);
    if (here && (!least || *here < *least)) least = here;
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return least;
    path.resize(slash);
  }
}

bool names_cpu(const std::string& controllers) {
  std::istringstream list(controllers);
  for (std::string name; std::getline(list, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::optional<int> quota_cores(const std::string& membership, const std::string& root) {
  std::optional<int> least;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    std::optional<int> here;
    if (controllers.empty()) {
      here = least_upwards(root, path, read_version_2);
    } else if (names_cpu(controllers)) {
      here = least_upwards(root + "/cpu", path, read_version_1);
      if (!here) here = least_upwards(root + "/" + controllers, path, read_version_1);
    }
    if (here && (!least || *here < *least)) least = here;
  }
  return least;
}

int physical_cores() {
  const int logical = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#ifdef __linux__
  const auto allowed_cores = [&] {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return logical;
    std::set<std::string> cores;  // hyper-threads of one core list the same siblings
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
      std::string siblings;
      if (!std::getline(file, siblings)) return logical;
      cores.insert(siblings);
    }
    return std::max(1, static_cast<int>(cores.size()));
  };
  std::ifstream file("/proc/self/cgroup");
  const std::string membership{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::optional<int> quota = quota_cores(membership, "/sys/fs/cgroup");
  return quota ? std::min(*quota, allowed_cores()) : allowed_cores();
#else
  return logical;
#endif
}

}  // namespace ringside::cpu
