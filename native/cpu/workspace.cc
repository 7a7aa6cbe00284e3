// Owns: the sizes of the buffers.
#include "cpu/workspace.h"

#include <algorithm>

namespace ringside::cpu {

void Workspace::carve(const Shape& shape, int64_t largest_group_columns, Carver& carver) {
  const rs_config& config = shape.config;
  const int64_t hidden = config.hidden;
  const int64_t d = config.head_dim;
  const int64_t routed_rows = kSlabRows * config.experts_per_token;
  const int64_t queries_per_kv = config.heads / config.kv_heads;
  query_rows = std::max(kQueryRows, kSplitRows * queries_per_kv);

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
  carver.take(partial_maximum, key_blocks * kSplitRows * config.heads);
  carver.take(partial_sum, key_blocks * kSplitRows * config.heads);
  carver.take(partial_mixed, key_blocks * kSplitRows * config.heads * d);
  for (WorkerSpace& worker : workers) {
    carver.take(worker.panel, largest_group_columns * kTileRows);
    carver.take(worker.edge, kBlockRows * kTileRows);
    carver.take(worker.query, query_rows * d);
    carver.take(worker.scores, query_rows * kPageTokens);
    carver.take(worker.maximum, query_rows);
    carver.take(worker.sum, query_rows);
    carver.take(worker.mixed, query_rows * d);
    carver.take(worker.block_maximum, query_rows);
    carver.take(worker.block_sum, query_rows);
    carver.take(worker.block_mixed, query_rows * d);
    carver.take(worker.limits, query_rows);
    carver.take(worker.chunk_scores, kChunkTokens * kChunkTokens);
    carver.take(worker.chunk_state, kChunkTokens * d);
    carver.take(worker.chunk_keys, kChunkTokens * d);
    carver.take(worker.router, 2 * int64_t{config.experts} + config.expert_groups);
  }
}

int64_t Workspace::planned_bytes(const Shape& shape, int threads, int64_t largest_group_columns) {
  Workspace plan;
  plan.workers.resize(static_cast<size_t>(threads));
  Carver counter(nullptr);
  plan.carve(shape, largest_group_columns, counter);
  return counter.bytes();
}

Result<Unit> Workspace::allocate(const Shape& shape, int threads, int64_t largest_group_columns, Workspace& out) {
  out.workers.resize(static_cast<size_t>(threads));
  RS_TRY(out.memory_, MappedMemory::allocate(planned_bytes(shape, threads, largest_group_columns), "workspace"));
  Carver carver(out.memory_.data());
  out.carve(shape, largest_group_columns, carver);
  return Unit{};
}

}  // namespace ringside::cpu
