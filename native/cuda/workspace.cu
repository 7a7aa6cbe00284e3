#include <algorithm>
#include <utility>

#include "cuda/kernels/read_attention.h"
#include "cuda/kernels/read_mixture.h"
#include "cuda/kernels/step.h"
#include "cuda/workspace.h"

namespace ringside::cuda {

void Workspace::carve(const DeviceModel& model, Carver& carver) {
  const rs_config& config = model.config;
  const bool has_mixtures = config.dense_layers < config.layers;
  qkv_stride = 3 * int64_t{model.width};
  if (model.softmax_layers > 0) qkv_stride = std::max<int64_t>(qkv_stride, model.width + 2 * int64_t{model.kv_width});
  carver.take(tokens, rows);
  carver.take(residual, rows * config.hidden);
  carver.take(normed, rows * config.hidden * (has_mixtures ? 3 : 1));
  carver.take(qkv, rows * qkv_stride);
  carver.take(output_gate, rows * model.width);
  carver.take(mixed, rows * model.width);
  carver.take(gated, rows * model.width);
  carver.take(inner, config.dense_layers > 0 ? rows * config.dense_width : 0);
  const int64_t mixture_bytes = has_mixtures ? read_mixture_scratch_bytes(model, rows) : 0;
  carver.take(scratch, std::max(read_attention_scratch_bytes(model, rows), mixture_bytes));
  carver.take(logits, kLogitRows * config.vocab_rows);
}

int64_t Workspace::planned_bytes(const DeviceModel& model, int64_t rows) {
  Workspace plan;
  plan.rows = rows;
  Carver counter(nullptr);
  plan.carve(model, counter);
  return counter.bytes();
}

Status Workspace::allocate(const DeviceModel& model, int64_t rows, Workspace& out) {
  out.rows = rows;
  RS_TRY(out.memory, DeviceMemory::allocate(planned_bytes(model, rows)));
  Carver carver(out.memory.data());
  out.carve(model, carver);
  RS_TRY(out.host_logits,
         PinnedMemory::allocate(kStepRows * model.config.vocab_rows * static_cast<int64_t>(sizeof(float))));
  return Unit{};
}

}  // namespace ringside::cuda
