// Owns: a model's weights in device memory, and the numbers that are known before they are there.
#pragma once

#include <functional>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/model.h"
#include "cuda/pack.h"
#include "error.h"
#include "model/backend.h"

namespace ringside::cuda {

struct Weights {
  DeviceModel model{};
  std::vector<float> slopes;    // [layers, heads]; model.config points at it
  std::vector<float> inv_freq;  // [rotary_dim / 2]; model.config points at it
  std::vector<DeviceMemory> memory;

  int64_t bytes() const {
    int64_t sum = 0;
    for (const DeviceMemory& block : memory) sum += block.bytes();
    return sum;
  }
};

// What the kernels cannot do is refused here, before anything is read.
Status check_shape(const rs_config& config);
// The numbers of a model, without a pointer of a layer. `weights` must not move afterwards.
void describe_model(const rs_config& config, Weights& weights);
int64_t query_key_value_rows(const DeviceModel& model, const DeviceLayer& layer);
// Bytes of all weights if every matrix but the routers came in `format`. Needs no device.
int64_t planned_weight_bytes(const DeviceModel& model, int32_t format, int64_t group_columns);

// Fills a described model: threads of the host read slices of matrices and pack them into pinned memory, from which the
// device copies them while the next are packed. `admit` hears how many bytes it will be before any is allocated and may
// refuse. `options.progress` is called on this thread alone.
Status load_weights(const rs_weight_source& source, const rs_load_options& options, int threads,
                    const std::function<Status(int64_t bytes)>& admit, Weights& out);

}  // namespace ringside::cuda
