// Owns: a model's weights in memory of the device and of the host, and the numbers that are known before they are
// there.
#pragma once

#include <functional>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/memory_plan.h"
#include "cuda/model.h"
#include "cuda/pack.h"
#include "error.h"
#include "model/backend.h"

namespace ringside::cuda {

struct Weights {
  DeviceModel model{};
  std::vector<float> slopes;    // [layers, heads]; model.config points at it
  std::vector<float> inv_freq;  // [rotary_dim / 2]; model.config points at it
  DeviceMemory memory;
  std::vector<HostMemory> host_memory;  // of the layers whose experts stay on the host

  int64_t host_bytes() const {
    int64_t sum = 0;
    for (const HostMemory& layer : host_memory) sum += layer.bytes();
    return sum;
  }
  int64_t bytes() const { return memory.bytes() + host_bytes(); }
};

// What the kernels cannot do is refused here, before anything is read.
Status check_shape(const rs_config& config);
// The numbers of a model, without a pointer of a layer. `weights` must not move afterwards.
void describe_model(const rs_config& config, Weights& weights);
int64_t query_key_value_rows(const DeviceModel& model, const DeviceLayer& layer);
// Bytes of all weights if every matrix but the routers came in `format`. Needs no device.
int64_t planned_weight_bytes(const DeviceModel& model, int32_t format, int64_t group_columns);

// Says which layers' experts stay on the host, or refuses. Asked before anything is allocated, and again, with nothing
// allocated, where a stack turned out to need a wider form.
using Placement = std::function<Result<std::vector<size_t>>(const WeightBytes&)>;

// Fills a described model: threads of the host read slices of matrices and pack them into pinned memory, from which the
// device copies them while the next are packed; what stays on the host is packed where it stays.
// `options.progress` is called on this thread alone.
Status load_weights(const rs_weight_source& source, const rs_load_options& options, int threads, int32_t device,
                    const Placement& choose, Weights& out);

}  // namespace ringside::cuda
