// Owns: the way of experts that stay on the host to the products of the read path: through two buffers of the device,
// one for a layer's gate_up and one for its down, each filled on a stream of its own while earlier work runs.
#pragma once

#include <array>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/memory_plan.h"
#include "cuda/stream.h"

namespace ringside::cuda {

class ExpertStream {
 public:
  enum Part : size_t { kGateUp = 0, kDown = 1 };

  ExpertStream() = default;
  ExpertStream(const ExpertStream&) = delete;
  ExpertStream& operator=(const ExpertStream&) = delete;
  ~ExpertStream();
  // Of a model whose weights are loaded. `model` must outlive it.
  Status create(const DeviceModel& model, const MemoryPlan& plan);

  // Before the layers of a slab of `rows` are queued on `stream`: brings the first layer's experts. With `is_last` no
  // slab follows, so nothing is brought behind the last layer's.
  Status begin(int64_t rows, bool is_last, cudaStream_t stream);
  // The stack that products queued on `stream` after this may read: where it lies, or in a buffer.
  Result<DeviceStack> take(Part part, const DeviceLayer& layer, cudaStream_t stream);
  // All products that read it are queued: the next layer's may follow it into the buffer.
  Status give_back(Part part, const DeviceLayer& layer, cudaStream_t stream);

 private:
  static constexpr size_t kNone = SIZE_MAX;
  struct Buffer {
    DeviceMemory memory;
    Event arrived, read;
    size_t holds = kNone;  // which of layers_
  };

  Status bring(Part part, size_t index);
  const DeviceStack& stack(Part part, size_t index) const;
  size_t index_of(const DeviceLayer& layer) const;

  const DeviceModel* model_ = nullptr;
  std::vector<size_t> layers_;  // on the host
  bool is_last_slab_ = true;
  bool reads_in_place_ = false;  // so few rows that most experts would come in vain
  Stream stream_;
  std::array<Buffer, 2> buffers_;
};

}  // namespace ringside::cuda
