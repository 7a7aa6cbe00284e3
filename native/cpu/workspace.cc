// Owns: the sizes of the buffers.
#include "cpu/workspace.h"

#include "cpu/kernels/attention_kernels.h"

namespace ringside::cpu {
namespace {

// Bytes of a code where one is too coarse whatever the weights: what an MLP's down projection reads has outliers; and
// nothing smooths the rounding of what the output head reads, which costs little, for few rows have logits.
constexpr int kInnerCodeBytes = 2;
constexpr int kHeadCodeBytes = 2;

void take_codes(QuantizedInput& input, int64_t rows, int64_t columns, const InputForms& forms, int code_bytes,
                Carver& carver) {
  const auto take = [&](bool is_read, QuantizedRows& part, int64_t group_columns) {
    part.columns = columns;
    part.group_columns = group_columns;
    part.groups = (columns + group_columns - 1) / group_columns;
    part.stride = quantized_stride(columns, group_columns, code_bytes);
    part.low_offset = code_bytes == 2 ? quantized_low_offset(columns, group_columns) : 0;
    if (!is_read) return;
    carver.take(part.values, rows * part.stride);
    carver.take(part.scales, rows * part.groups);
    carver.take(part.sums, rows * part.groups);
  };
  take(forms.groups_of_32, input.groups_of_32, 32);
  take(forms.groups_of_64, input.groups_of_64, 64);
  take(forms.groups_of_128, input.groups_of_128, 128);
}

void take_activations(Activations& to, int64_t rows, int64_t columns, const InputForms& forms, int code_bytes,
                      Carver& carver) {
  to.stride = columns;
  if (forms.floats) carver.take(to.values, rows * columns);
  take_codes(to.codes, rows, columns, forms, code_bytes, carver);
}

// What attention needs does not depend on the format of keys and values.
KvLayout attention_layout(const Shape& shape) { return {RS_KV_F32, shape.config.head_dim}; }

}  // namespace

void Workspace::carve(const Shape& shape, const InputForms& forms, Carver& carver) {
  const int64_t hidden = shape.config.hidden;
  const int64_t queries_per_kv = shape.config.heads / shape.config.kv_heads;
  // The longest job, in whole groups.
  query_rows =
      (std::max(kQueryRows, kSplitRows * queries_per_kv) + kQueryGroupRows - 1) / kQueryGroupRows * kQueryGroupRows;
  carver.take(residual, kSlabRows * hidden);
  carver.take(cosines, kSlabRows * (shape.config.rotary_dim / 2));
  carver.take(sines, kSlabRows * (shape.config.rotary_dim / 2));
  carver.take(normed, kSlabRows * hidden);
  take_codes(input_codes, kSlabRows, std::max(hidden, shape.attention_width), forms, forms.code_bytes(), carver);
  // Never needed at the same time.
  Carver mlp = carver;
  Carver head = carver;
  carve_attention(shape, carver);
  carve_mlp(shape, forms, mlp);
  take_codes(head_codes, kSlabRows, hidden, forms, kHeadCodeBytes, head);
  if (mlp.bytes() > carver.bytes()) carver = mlp;
  if (head.bytes() > carver.bytes()) carver = head;
  for (WorkerSpace& worker : workers) carve_worker(shape, forms, worker, carver);
}

void Workspace::carve_attention(const Shape& shape, Carver& carver) {
  const rs_config& config = shape.config;
  carver.take(qkv, kSlabRows * std::max(3 * shape.attention_width, shape.attention_width + 2 * shape.kv_width));
  carver.take(output_gate, kSlabRows * shape.attention_width);
  carver.take(mixed, kSlabRows * shape.attention_width);
  const int64_t key_blocks = shape.softmax_layers == 0 ? 0 : config.context_tokens / kPageTokens + 1;
  partial_rows = key_blocks * kSplitRows * config.heads;
  carver.take(partial_maximum, partial_rows);
  carver.take(partial_sum, partial_rows);
  carver.take(partial_mixed, partial_rows * attention_layout(shape).channels());
}

void Workspace::carve_mlp(const Shape& shape, const InputForms& forms, Carver& carver) {
  const rs_config& config = shape.config;
  const int64_t routed_rows = kSlabRows * config.experts_per_token;
  carver.take(router_logits, kSlabRows * config.experts);
  carver.take(expert_weights, routed_rows);
  carver.take(chosen, routed_rows);
  carver.take(gathered_token, routed_rows);
  carver.take(gathered_weight, routed_rows);
  take_activations(expert_inner, routed_rows, config.expert_width, forms, kInnerCodeBytes, carver);
  take_activations(always_inner, kSlabRows, shape.largest_mlp_width, forms, kInnerCodeBytes, carver);
}

void Workspace::carve_worker(const Shape& shape, const InputForms& forms, WorkerSpace& worker, Carver& carver) const {
  const rs_config& config = shape.config;
  const int64_t hidden = config.hidden;
  carver.take(worker.panel, kUnscaledGroupColumns * kTileRows);
  carver.take(worker.coded, kCodedScratchBytes);
  carver.take(worker.tile, kBlockRows * kTileRows);
  carver.take(worker.gate, kBlockRows * kInnerColumns);
  carver.take(worker.up, kBlockRows * kInnerColumns);
  carver.take(worker.mlp_sum, kSlabRows * kTileRows);
  // The codes lie as in input_codes, from which they are copied.
  worker.gathered.stride = hidden;
  if (forms.floats) carver.take(worker.gathered.values, block_rows(hidden) * hidden);
  take_codes(worker.gathered.codes, block_rows(hidden), std::max(hidden, shape.attention_width), forms,
             forms.code_bytes(), carver);
  const KvLayout kv = attention_layout(shape);
  carver.take(worker.queries, query_rows * kv.query_bytes());
  carver.take(worker.maximum, query_rows);
  carver.take(worker.sum, query_rows);
  carver.take(worker.mixed, query_rows * kv.channels());
  carver.take(worker.limits, query_rows);
  carver.take(worker.attention, attention_scratch_bytes(kv));
  carver.take(worker.router, 2 * int64_t{config.experts} + config.expert_groups);
}

int64_t Workspace::planned_bytes(const Shape& shape, int threads, const InputForms& forms) {
  Workspace plan;
  plan.workers.resize(static_cast<size_t>(threads));
  Carver counter(nullptr);
  plan.carve(shape, forms, counter);
  return counter.bytes();
}

Result<Unit> Workspace::allocate(const Shape& shape, int threads, const InputForms& forms, Workspace& out) {
  out.workers.resize(static_cast<size_t>(threads));
  RS_TRY(out.memory_, MappedMemory::allocate(planned_bytes(shape, threads, forms), "workspace"));
  Carver carver(out.memory_.data());
  out.carve(shape, forms, carver);
  return Unit{};
}

}  // namespace ringside::cpu
