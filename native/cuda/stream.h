// Owns: a CUDA stream and a CUDA event as values that destroy themselves.
#pragma once

#include <utility>

#include "cuda/cuda_call.h"

namespace ringside::cuda {

class Stream {
 public:
  Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    if (handle_ != nullptr) cudaStreamDestroy(handle_);
  }
  Status create() {
    RS_CUDA(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking));
    return Unit{};
  }
  cudaStream_t get() const { return handle_; }
  Status wait() const {
    RS_CUDA(cudaStreamSynchronize(handle_));
    return Unit{};
  }

 private:
  cudaStream_t handle_ = nullptr;
};

class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() {
    if (handle_ != nullptr) cudaEventDestroy(handle_);
  }
  cudaEvent_t get() const { return handle_; }
  // Who waits for it sleeps, as it stands for work of milliseconds; or not, where waking would take longer than the
  // work.
  Status create(bool sleeps = true) {
    RS_CUDA(cudaEventCreateWithFlags(&handle_, cudaEventDisableTiming | (sleeps ? cudaEventBlockingSync : 0)));
    return Unit{};
  }
  Status record(const Stream& stream) const {
    RS_CUDA(cudaEventRecord(handle_, stream.get()));
    return Unit{};
  }
  // What is queued on the stream from now on waits for it; the caller does not.
  Status hold_back(const Stream& stream) const {
    RS_CUDA(cudaStreamWaitEvent(stream.get(), handle_, 0));
    return Unit{};
  }
  Result<bool> has_happened() const {
    cudaError_t code = pretended_error();
    if (code == cudaSuccess) code = cudaEventQuery(handle_);
    if (code == cudaSuccess) return true;
    if (code != cudaErrorNotReady) return cuda_error(code, "cudaEventQuery");
    cudaGetLastError();  // the runtime remembers even this as an error
    return false;
  }
  // One that was never recorded has happened.
  Status wait() const {
    RS_CUDA(cudaEventSynchronize(handle_));
    return Unit{};
  }

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace ringside::cuda
