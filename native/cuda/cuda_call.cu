#include <algorithm>
#include <atomic>
#include <string>

#include "cuda/cuda_call.h"

namespace ringside::cuda {
namespace {

std::atomic<int64_t> calls{0};
std::atomic<int64_t> failing_call{0};  // in `calls`; 0: none
std::atomic<cudaError_t> failing_code{cudaSuccess};

ErrorKind kind_of(cudaError_t code) {
  switch (code) {
    case cudaErrorMemoryAllocation:
      return ErrorKind::kOutOfMemory;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return ErrorKind::kBackendUnavailable;
    // After these every call of the process fails likewise (CUDA Runtime API, "Error handling").
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
      return ErrorKind::kDeviceLost;
    default:
      return ErrorKind::kInternal;
  }
}

}  // namespace

Error cuda_error(cudaError_t code, const char* what) {
  // A refused allocation or launch is remembered by the runtime; the next call must not be blamed for it.
  cudaGetLastError();
  // Without the arguments: they name our variables, and the table's error is short.
  std::string call(what);
  call.resize(std::min(call.find('('), call.size()));
  return Error{kind_of(code), call, "", std::string(cudaGetErrorName(code)) + ": " + cudaGetErrorString(code)};
}

void fail_call(int64_t call, cudaError_t code) {
  failing_code = code;
  failing_call = call == 0 ? 0 : calls + call;
}

int64_t calls_made() { return calls; }

cudaError_t pretended_error() {
  const int64_t number = ++calls;
  return number == failing_call ? failing_code.load() : cudaSuccess;
}

}  // namespace ringside::cuda
