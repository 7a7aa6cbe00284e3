// Owns: the sizes of the buffers.
#include "cpu/workspace.h"

#include <algorithm>

#include "cpu/kernels/attention_kernels.h"

namespace ringside::cpu {
namespace {

// Pages of a size of group that no matrix has are never touched.
void take_quantized(QuantizedInput& input, int64_t rows, int64_t columns, Carver& carver) {
  const auto take = [&](QuantizedRows& part, int64_t group_columns) {
    part.columns = columns;
    part.group_columns = group_columns;
    part.groups = (columns + group_columns - 1) / group_columns;
    part.stride = (part.groups * group_columns + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
    carver.take(part.values, rows * part.stride);
    carver.take(part.scales, rows * part.groups);
    carver.take(part.sums, rows * part.groups);
  };
  take(input.groups_of_32, 32);
  take(input.groups_of_64, 64);
  take(input.groups_of_128, 128);
}

}  // namespace

void Workspace::carve(const Shape& shape, Carver& carver) {
  const rs_config& config = shape.config;
  const int64_t hidden = config.hidden;
  // What attention needs does not depend on the format of keys and values.
  const KvLayout kv{RS_KV_F32, config.head_dim};
  const int64_t routed_rows = kSlabRows * config.experts_per_token;
  const int64_t queries_per_kv = config.heads / config.kv_heads;
  // The longest job, in whole groups.
  query_rows =
      (std::max(kQueryRows, kSplitRows * queries_per_kv) + kQueryGroupRows - 1) / kQueryGroupRows * kQueryGroupRows;

  carver.take(residual, kSlabRows * hidden);
  carver.take(normed, kSlabRows * hidden);
  carver.take(projected, kSlabRows * hidden);
  carver.take(qkv, kSlabRows * std::max(3 * shape.attention_width, shape.attention_width + 2 * shape.kv_width));
  carver.take(output_gate, kSlabRows * shape.attention_width);
  carver.take(mixed, kSlabRows * shape.attention_width);
  carver.take(cosines, kSlabRows * (config.rotary_dim / 2));
  carver.take(sines, kSlabRows * (config.rotary_dim / 2));
  carver.take(router_logits, kSlabRows * config.experts);
  carver.take(expert_weights, routed_rows);
  carver.take(chosen, routed_rows);
  carver.take(expert_row, routed_rows);
  carver.take(gathered_token, routed_rows);
  carver.take(gathered, routed_rows * hidden);
  carver.take(expert_gate, routed_rows * config.expert_width);
  carver.take(expert_up, routed_rows * config.expert_width);
  carver.take(always_gate, kSlabRows * shape.largest_mlp_width);
  carver.take(always_up, kSlabRows * shape.largest_mlp_width);
  const int64_t key_blocks = shape.softmax_layers == 0 ? 0 : config.context_tokens / kPageTokens + 1;
  partial_rows = key_blocks * kSplitRows * config.heads;
  carver.take(partial_maximum, partial_rows);
  carver.take(partial_sum, partial_rows);
  carver.take(partial_mixed, partial_rows * kv.channels());
  take_quantized(normed_codes, kSlabRows, hidden, carver);
  take_quantized(mixed_codes, kSlabRows, shape.attention_width, carver);
  take_quantized(gathered_codes, routed_rows, hidden, carver);
  take_quantized(expert_gate_codes, routed_rows, config.expert_width, carver);
  take_quantized(always_gate_codes, kSlabRows, shape.largest_mlp_width, carver);
  const int64_t widest =
      std::max({hidden, shape.attention_width, int64_t{config.expert_width}, shape.largest_mlp_width});
  for (WorkerSpace& worker : workers) {
    carver.take(worker.panel, kUnscaledGroupColumns * kTileRows);
    carver.take(worker.coded, coded_scratch_bytes(widest));
    carver.take(worker.edge, kBlockRows * kTileRows);
    carver.take(worker.queries, query_rows * kv.query_bytes());
    carver.take(worker.maximum, query_rows);
    carver.take(worker.sum, query_rows);
    carver.take(worker.mixed, query_rows * kv.channels());
    carver.take(worker.limits, query_rows);
    carver.take(worker.attention, attention_scratch_bytes(kv));
    carver.take(worker.router, 2 * int64_t{config.experts} + config.expert_groups);
  }
}

int64_t Workspace::planned_bytes(const Shape& shape, int threads) {
  Workspace plan;
  plan.workers.resize(static_cast<size_t>(threads));
  Carver counter(nullptr);
  plan.carve(shape, counter);
  return counter.bytes();
}

Result<Unit> Workspace::allocate(const Shape& shape, int threads, Workspace& out) {
  out.workers.resize(static_cast<size_t>(threads));
  RS_TRY(out.memory_, MappedMemory::allocate(planned_bytes(shape, threads), "workspace"));
  Carver carver(out.memory_.data());
  out.carve(shape, carver);
  return Unit{};
}

}  // namespace ringside::cpu
