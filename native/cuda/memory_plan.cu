#include <algorithm>
#include <cstdio>
#include <string>

#include "cuda/cuda_call.h"
#include "cuda/memory_plan.h"

namespace ringside::cuda {
namespace {

std::string gigabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GB", static_cast<double>(std::max<int64_t>(bytes, 0)) * 1e-9);
  return text;
}

}  // namespace

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

int64_t usable_bytes(int64_t free_bytes, int64_t total_bytes) {
  constexpr int64_t kKeptBytes = 500'000'000;
  return free_bytes - std::min(kKeptBytes, total_bytes / 20);
}

Status check_memory(const MemoryPlan& plan, int64_t taken_bytes) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  RS_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  const int64_t usable = usable_bytes(static_cast<int64_t>(free_bytes), static_cast<int64_t>(total_bytes));
  if (plan.needed_bytes() - taken_bytes <= usable) return Unit{};
  return Error{ErrorKind::kOutOfMemory, "GPU memory", gigabytes(plan.needed_bytes()) + " needed",
               gigabytes(usable + taken_bytes) + " free"};
}

}  // namespace ringside::cuda
