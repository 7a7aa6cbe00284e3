// Owns: the way from a CUDA error to ours, and the counter with which tests make the Nth call fail.
// Every call of the CUDA runtime outside a kernel goes through here.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "error.h"

namespace ringside::cuda {

// kOutOfMemory and kBackendUnavailable for what the user can help, kDeviceLost for what only a new process can, else
// kInternal; `what` is the call's text.
Error cuda_error(cudaError_t code, const char* what);

// For tests: the call number `call` from now on (1 is the next) fails with `code`; 0 switches it off. Of a process.
void fail_call(int64_t call, cudaError_t code);
int64_t calls_made();
// Counts a call; the error that it has to pretend, or cudaSuccess.
cudaError_t pretended_error();

}  // namespace ringside::cuda

// Evaluates a call of the runtime and returns its error from the enclosing function.
#define RS_CUDA(call)                                                                            \
  do {                                                                                           \
    cudaError_t rs_cuda_code_ = ::ringside::cuda::pretended_error();                             \
    if (rs_cuda_code_ == cudaSuccess) rs_cuda_code_ = (call);                                    \
    if (rs_cuda_code_ != cudaSuccess) return ::ringside::cuda::cuda_error(rs_cuda_code_, #call); \
  } while (0)

// After a kernel launch: its configuration may have been refused.
#define RS_LAUNCHED() RS_CUDA(cudaGetLastError())
