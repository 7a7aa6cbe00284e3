#include <cuda.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string>

#include "cuda/cuda_call.h"
#include "cuda/device.h"

namespace ringside::cuda {
namespace {

constexpr int kLeastMajor = 8;  // compute capability

// Of the driver's own interface, which counts who uses a device's context; the runtime would keep it to the end.
struct Driver {
  CUresult (*retain)(CUcontext*, CUdevice) = nullptr;
  CUresult (*release)(CUdevice) = nullptr;
  CUresult (*push)(CUcontext) = nullptr;
  CUresult (*pop)(CUcontext*) = nullptr;
  CUresult (*memory)(size_t*, size_t*) = nullptr;

  Status find() {
    RS_CHECK(entry("cuDevicePrimaryCtxRetain", retain));
    RS_CHECK(entry("cuDevicePrimaryCtxRelease", release));
    RS_CHECK(entry("cuCtxPushCurrent", push));
    RS_CHECK(entry("cuCtxPopCurrent", pop));
    return entry("cuMemGetInfo", memory);
  }

 private:
  template <class Function>
  static Status entry(const char* name, Function*& out) {
    void* found = nullptr;
    RS_CUDA(cudaGetDriverEntryPointByVersion(name, &found, CUDART_VERSION, cudaEnableDefault, nullptr));
    out = reinterpret_cast<Function*>(found);
    if (out != nullptr) return Unit{};
    return Error{ErrorKind::kBackendUnavailable, name, "in the driver", "none"};
  }
};

// A line "NAME: 123 kB", in bytes; -1: there is none.
int64_t line_of(std::ifstream& file, const std::string& name) {
  for (std::string line; std::getline(file, line);) {
    long long kilobytes = 0;
    if (line.starts_with(name) && std::sscanf(line.c_str() + name.size(), ": %lld kB", &kilobytes) == 1) {
      return kilobytes * 1024;
    }
  }
  return -1;
}

// The whole of a file that holds one number; -1: there is none, or it says "max".
int64_t number_in(const char* path) {
  std::ifstream file(path);
  long long number = 0;
  return file >> number ? number : -1;
}

}  // namespace

int64_t FreeMemory::usable_bytes() const {
  constexpr int64_t kKeptBytes = 500'000'000;
  return free_bytes - std::min(kKeptBytes, total_bytes / 20);
}

Result<FreeMemory> device_memory(int32_t device) {
  Driver driver;
  RS_CHECK(driver.find());
  const auto failed = [](const char* call, CUresult code) {
    return Error{ErrorKind::kBackendUnavailable, call, "", "error " + std::to_string(static_cast<int>(code))};
  };
  CUcontext context = nullptr;
  const CUresult retained = driver.retain(&context, device);
  if (retained != CUDA_SUCCESS) return failed("cuDevicePrimaryCtxRetain", retained);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  CUresult asked = driver.push(context);
  if (asked == CUDA_SUCCESS) {
    asked = driver.memory(&free_bytes, &total_bytes);
    driver.pop(&context);
  }
  driver.release(device);
  if (asked != CUDA_SUCCESS) return failed("cuMemGetInfo", asked);
  return FreeMemory{static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes)};
}

Result<FreeMemory> host_memory() {
  std::ifstream info("/proc/meminfo");
  FreeMemory memory;
  memory.total_bytes = line_of(info, "MemTotal");
  memory.free_bytes = line_of(info, "MemAvailable");
  if (memory.total_bytes < 0 || memory.free_bytes < 0) {
    return Error{ErrorKind::kFileUnreadable, "/proc/meminfo", "MemTotal and MemAvailable", ""};
  }
  // Of a container or a service (Linux, cgroup v2). What it holds of files is given back when memory is wanted.
  const int64_t most = number_in("/sys/fs/cgroup/memory.max");
  const int64_t taken = number_in("/sys/fs/cgroup/memory.current");
  if (most >= 0 && taken >= 0) {
    std::ifstream stat("/sys/fs/cgroup/memory.stat");
    int64_t files = 0;
    for (std::string line; std::getline(stat, line);) {
      long long bytes = 0;
      if (std::sscanf(line.c_str(), "inactive_file %lld", &bytes) == 1) files = bytes;
    }
    memory.total_bytes = std::min(memory.total_bytes, most);
    memory.free_bytes = std::min(memory.free_bytes, most - taken + files);
  }
  return memory;
}

Result<int32_t> choose_device(int32_t wanted) {
  int count = 0;
  RS_CUDA(cudaGetDeviceCount(&count));
  if (wanted >= 0) {
    if (wanted < count) return wanted;
    return Error{ErrorKind::kArgumentInvalid, "device",
                 "0.." + std::to_string(count - 1) + ", there are " + std::to_string(count), std::to_string(wanted)};
  }
  int32_t chosen = 0;
  int64_t most = -1;
  for (int32_t device = 0; device < count && count > 1; ++device) {
    int major = 0;
    RS_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    if (major < kLeastMajor) continue;
    // One that somebody has for himself, or that is broken, is none.
    const Result<FreeMemory> memory = device_memory(device);
    if (!memory.ok() || memory->free_bytes <= most) continue;
    chosen = device;
    most = memory->free_bytes;
  }
  return chosen;
}

Status use_device(int32_t device) {
  RS_CUDA(cudaSetDevice(device));
  return Unit{};
}

}  // namespace ringside::cuda
