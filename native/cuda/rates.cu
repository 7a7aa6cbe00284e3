// Owns: what the card can do at best, measured: copying, reading and multiplying bf16.
// Must never: use what the kernels of the model are made of for more than single instructions; a limit that their
// design has a share in would flatter them.
#include <algorithm>
#include <cstdint>

#include "cuda/cuda_call.h"
#include "cuda/device_memory.h"
#include "cuda/kernels/warpgroup.cuh"
#include "cuda/stream.h"
#include "model/backend_errors.h"
#include "model/device_rates.h"

namespace ringside::cuda {
namespace {

constexpr int64_t kTrafficBytes = int64_t{1} << 30;  // twenty times the largest L2
constexpr int kTries = 7;                            // the best counts: the first ones find a slow clock
constexpr int kThreads = 256;                        // two warpgroups: each waits while the other multiplies
constexpr int kMultiplySteps = 1 << 14;

// Words without a pattern. As bf16 they are numbers of 1 to 2 with either sign: a product of zeros draws less power
// than one of numbers, and the clock would stay higher.
__global__ void fill_kernel(uint32_t* words, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + 12345u;
    x = (x ^ x >> 15) * 2246822519u;
    words[i] = ((x ^ x >> 13) & 0x807f807fu) | 0x3f803f80u;
  }
}

__global__ void __launch_bounds__(1024) read_kernel(const uint4* from, int64_t count, uint32_t* sink) {
  constexpr int kAtOnce = 8;
  uint32_t sum = 0;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (; i + (kAtOnce - 1) * stride < count; i += kAtOnce * stride) {
    uint4 v[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; k++) v[k] = __ldcs(from + i + k * stride);
#pragma unroll
    for (int k = 0; k < kAtOnce; k++) sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 0x13572468u) *sink = sum;  // hardly ever: the loads must have a use
}

__global__ void __launch_bounds__(1024) copy_kernel(const uint4* from, uint4* to, int64_t count) {
  constexpr int kAtOnce = 4;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (; i + (kAtOnce - 1) * stride < count; i += kAtOnce * stride) {
    uint4 v[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; k++) v[k] = __ldcs(from + i + k * stride);
#pragma unroll
    for (int k = 0; k < kAtOnce; k++) __stcs(to + i + k * stride, v[k]);
  }
}

// Products whose operands are at hand already: of a warpgroup 64 x 128 x 16 where there is one, else of each warp
// 16 x 8 x 16 eight times.
__global__ void __launch_bounds__(kThreads, 1) multiply_kernel(const uint32_t* words, int steps, float* sink) {
  const uint32_t thread = threadIdx.x;
  uint32_t a[4];
#pragma unroll
  for (int i = 0; i < 4; i++) a[i] = words[thread * 4 + i];
  float sum = 0.0f;
#if defined(RS_WARPGROUP_CODE)
  constexpr int kWords = 128 * 64 / 2;  // 128 rows of 64 columns: four steps of k
  __shared__ __align__(1024) uint32_t b[kWords];
  for (uint32_t i = thread; i < kWords; i += kThreads) b[i] = words[i];
  fence_for_wgmma();
  __syncthreads();
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(b));
  float d[64] = {};
  wgmma_fence();
  for (int step = 0; step < steps; step += 4) {
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma<128>(d, a, wgmma_operand(shared + k * 32), 1);
    wgmma_commit();
    wgmma_wait<0>();
  }
  hold_results(d);
#pragma unroll
  for (int i = 0; i < 64; i++) sum += d[i];
#else
  float d[8][4] = {};
  const uint32_t b[2] = {words[thread], words[thread + kThreads]};
  for (int step = 0; step < steps; step++) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
#endif
  if (sum == 1.2345e-30f) *sink = sum;
}

// A block of threads and a step of multiply_kernel.
double multiply_flops(int major) {
  return major == 9 ? kThreads / 128 * 2.0 * 64 * 128 * 16 : kThreads / 32 * 8 * 2.0 * 16 * 8 * 16;
}

class Timer {
 public:
  Timer() = default;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    for (const cudaEvent_t event : {begin_, end_}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }
  Status create() {
    RS_CUDA(cudaEventCreate(&begin_));
    RS_CUDA(cudaEventCreate(&end_));
    return stream_.create();
  }
  // Seconds of what `queue(stream)` queues, the shortest of several runs.
  template <class Queue>
  Result<double> shortest(const Queue& queue) const {
    double best = 0.0;
    for (int i = 0; i < kTries; ++i) {
      RS_CUDA(cudaEventRecord(begin_, stream_.get()));
      RS_CHECK(queue(stream_.get()));
      RS_CUDA(cudaEventRecord(end_, stream_.get()));
      RS_CUDA(cudaEventSynchronize(end_));
      float milliseconds = 0.0f;
      RS_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
      const double seconds = milliseconds * 1e-3;
      best = i == 0 ? seconds : std::min(best, seconds);
    }
    return best;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  Stream stream_;
};

Status measure(rs_device_rates& out) {
  cudaDeviceProp properties{};
  RS_CUDA(cudaGetDeviceProperties(&properties, 0));
  const int processors = properties.multiProcessorCount;
  RS_TRY(const DeviceMemory from, DeviceMemory::allocate(kTrafficBytes));
  RS_TRY(const DeviceMemory to, DeviceMemory::allocate(kTrafficBytes));
  Timer timer;
  RS_CHECK(timer.create());
  auto* const words = reinterpret_cast<uint32_t*>(from.data());
  fill_kernel<<<processors * 8, 256>>>(words, kTrafficBytes / 4);
  RS_LAUNCHED();
  RS_CUDA(cudaDeviceSynchronize());
  const auto* const vectors = reinterpret_cast<const uint4*>(from.data());
  const auto bytes = static_cast<double>(kTrafficBytes);
  RS_TRY(const double read_s, timer.shortest([&](cudaStream_t stream) -> Status {
    read_kernel<<<processors * 2, 1024, 0, stream>>>(vectors, kTrafficBytes / 16,
                                                     reinterpret_cast<uint32_t*>(to.data()));
    RS_LAUNCHED();
    return Unit{};
  }));
  out.read_bytes_s = bytes / read_s;
  RS_TRY(const double copy_s, timer.shortest([&](cudaStream_t stream) -> Status {
    copy_kernel<<<processors * 2, 1024, 0, stream>>>(vectors, reinterpret_cast<uint4*>(to.data()), kTrafficBytes / 16);
    RS_LAUNCHED();
    return Unit{};
  }));
  // The runtime's own copy may be the faster one.
  RS_TRY(const double runtime_s, timer.shortest([&](cudaStream_t stream) -> Status {
    RS_CUDA(cudaMemcpyAsync(to.data(), from.data(), kTrafficBytes, cudaMemcpyDeviceToDevice, stream));
    return Unit{};
  }));
  out.copy_bytes_s = 2.0 * bytes / std::min(copy_s, runtime_s);
  RS_TRY(const double multiply_s, timer.shortest([&](cudaStream_t stream) -> Status {
    multiply_kernel<<<processors, kThreads, 0, stream>>>(words, kMultiplySteps, reinterpret_cast<float*>(to.data()));
    RS_LAUNCHED();
    return Unit{};
  }));
  out.bf16_flops = processors * multiply_flops(properties.major) * kMultiplySteps / multiply_s;
  return Unit{};
}

}  // namespace
}  // namespace ringside::cuda

extern "C" __attribute__((visibility("default"))) int32_t rs_cuda_rates(rs_device_rates* out, rs_error* error) {
  return ringside::guarded(error, "device rates", [&]() -> ringside::Status { return ringside::cuda::measure(*out); });
}
