#include <algorithm>
#include <cstdio>
#include <string>

#include "cuda/device.h"
#include "cuda/kernels/step.h"
#include "cuda/memory_plan.h"
#include "cuda/workspace.h"

namespace ringside::cuda {
namespace {

// `count` of the layers, at even distances: what the bus brings for one falls into the work of those before it.
void put_on_host(const WeightBytes& weights, size_t count, MemoryPlan& plan) {
  plan.weight_bytes = weights.resident;
  plan.host_layers.clear();
  plan.host_bytes = plan.gate_up_buffer_bytes = plan.down_buffer_bytes = 0;
  const size_t all = weights.experts.size();
  for (size_t i = 0; i < all; ++i) {
    const WeightBytes::Experts& experts = weights.experts[i];
    if ((i + 1) * count / all == i * count / all) {
      plan.weight_bytes += experts.bytes();
      continue;
    }
    plan.host_layers.push_back(experts.layer);
    plan.host_bytes += experts.bytes();
    plan.gate_up_buffer_bytes = std::max(plan.gate_up_buffer_bytes, experts.gate_up);
    plan.down_buffer_bytes = std::max(plan.down_buffer_bytes, experts.down);
  }
}

// Whether it fits with a slab of so many rows, with as few layers on the host as possible; of at most `most_layers`.
bool fit(const WeightBytes& weights, const MemoryLimits& limits, size_t most_layers, MemoryPlan& plan) {
  for (size_t count = 0; count <= most_layers; ++count) {
    put_on_host(weights, count, plan);
    if (plan.needed_bytes() <= limits.device_bytes) return true;
  }
  return false;
}

}  // namespace

std::string gigabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GB", static_cast<double>(std::max<int64_t>(bytes, 0)) * 1e-9);
  return text;
}

Result<MemoryLimits> memory_limits(int32_t device, int64_t most_device_bytes) {
  RS_TRY(const FreeMemory on_device, device_memory(device));
  RS_TRY(const FreeMemory on_host, host_memory());
  MemoryLimits limits{on_device.usable_bytes(), on_host.usable_bytes()};
  if (most_device_bytes > 0 && most_device_bytes < limits.device_bytes) {
    limits.device_bytes = most_device_bytes;
    limits.is_chosen = true;
  }
  return limits;
}

int64_t workspace_bytes(const DeviceModel& model, int64_t rows) {
  return Workspace::planned_bytes(model, rows) + step_scratch_bytes(model);
}

MemoryPlan plan_sessions(const DeviceModel& model) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  const int64_t heads = int64_t{model.linear_layers} * model.config.heads;
  MemoryPlan plan;
  plan.state_bytes = heads * kHeadDim * kHeadDim * kFloat;
  plan.open_rows_bytes = 2 * heads * kChunkTokens * kHeadDim * kFloat;
  plan.page_bytes = int64_t{model.softmax_layers} * model.config.kv_heads * 2 * page_part_bytes(model.kv_format);
  plan.context_pages = (model.config.context_tokens + kPageTokens - 1) / kPageTokens;
  return plan;
}

Result<MemoryPlan> plan_memory(const DeviceModel& model, const WeightBytes& weights, const MemoryLimits& limits) {
  MemoryPlan plan = plan_sessions(model);
  const size_t all = weights.experts.size();
  bool fits = false;
  for (const size_t most_layers : {size_t{0}, all}) {
    for (int64_t rows = kSlabRows; rows >= kLeastSlabRows && !fits; rows /= 2) {
      plan.slab_rows = rows;
      plan.workspace_bytes = workspace_bytes(model, rows);
      fits = fit(weights, limits, most_layers, plan);
    }
  }
  if (!fits) {
    const char* const with = all > 0 ? " needed, with all experts on the host" : " needed";
    return Error{ErrorKind::kOutOfMemory, "GPU memory", gigabytes(plan.needed_bytes()) + with,
                 gigabytes(limits.device_bytes) + (limits.is_chosen ? " allowed" : " free")};
  }
  if (plan.host_bytes <= limits.host_bytes) return plan;
  return Error{ErrorKind::kOutOfMemory, "the experts that the GPU has no room for", gigabytes(plan.host_bytes),
               gigabytes(limits.host_bytes) + " free"};
}

}  // namespace ringside::cuda
