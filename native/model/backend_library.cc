#include "backend_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "backend_errors.h"

namespace ringside {
namespace {

constexpr int kNeededCudaVersion = 13000;  // major * 1000 + minor * 10, of driver 580
constexpr int kNoDevice = 100;             // CUDA_ERROR_NO_DEVICE
constexpr const char* kLibraryName = "libringside_cuda.so";

Error unavailable(const char* subject, std::string expected, std::string actual) {
  return {ErrorKind::kBackendUnavailable, subject, std::move(expected), std::move(actual)};
}

std::string version_text(int version) {
  return "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The driver's own interface is plain C and has kept these names since its first version.
Status check_driver() {
  const std::string needed = "580 or newer (" + version_text(kNeededCudaVersion) + ")";
  // Never closed: a driver cannot be unloaded safely.
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return unavailable("NVIDIA driver", needed, "none");
  const auto get_version = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"));
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count_devices = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  int version = 0;
  if (get_version == nullptr || init == nullptr || count_devices == nullptr || get_version(&version) != 0) {
    return unavailable("NVIDIA driver", needed, "one that does not answer");
  }
  if (version < kNeededCudaVersion) return unavailable("NVIDIA driver", needed, version_text(version));
  int devices = 0;
  int code = init(0);
  if (code == 0) code = count_devices(&devices);
  if (code != 0 && code != kNoDevice) {
    return unavailable("NVIDIA driver", "one that starts", "error " + std::to_string(code));
  }
  if (devices < 1) return unavailable("NVIDIA GPU", "at least one", "none");
  return Unit{};
}

// The folder that holds this code, with a slash at its end; empty for the current folder.
std::string own_folder() {
  Dl_info info{};
  const auto self = reinterpret_cast<const void*>(&open_cuda_backend);
  if (dladdr(self, &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

Result<void*> open_library() {
  RS_CHECK(check_driver());
  // With a slash, so that the system looks there and nowhere else.
  const std::string folder = own_folder();
  const std::string path = (folder.empty() ? "./" : folder) + kLibraryName;
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  const char* const reason = dlerror();
  const bool is_there = access(path.c_str(), F_OK) == 0;
  return unavailable(kLibraryName, "beside the engine", is_there && reason != nullptr ? reason : "none");
}

Result<void*> library() {
  static const Result<void*> opened = open_library();
  return opened;
}

Result<const rs_backend*> find_backend() {
  RS_TRY(void* const library, library());
  const auto table = reinterpret_cast<const rs_backend* (*)()>(dlsym(library, "rs_cuda_backend"));
  const rs_backend* const backend = table == nullptr ? nullptr : table();
  if (backend != nullptr && backend->version == RS_BACKEND_VERSION) return backend;
  return unavailable(kLibraryName, "version " + std::to_string(RS_BACKEND_VERSION),
                     backend == nullptr ? "none" : std::to_string(backend->version));
}

}  // namespace

Result<const rs_backend*> open_cuda_backend() {
  static const Result<const rs_backend*> found = find_backend();
  return found;
}

Result<rs_device_rates> measure_cuda_rates() {
  RS_CHECK(open_cuda_backend());
  RS_TRY(void* const library, library());
  const auto measure = reinterpret_cast<int32_t (*)(rs_device_rates*, rs_error*)>(dlsym(library, "rs_cuda_rates"));
  if (measure == nullptr) return unavailable(kLibraryName, "one that measures the card", "none");
  rs_device_rates rates{};
  rs_error error{};
  if (measure(&rates, &error) != 0) return to_error(error);
  return rates;
}

}  // namespace ringside
