#include "tools/bench_cost.h"

#include "cpu/inspect.h"
#include "cpu/kernels/pack.h"

namespace ringside::tools {
namespace {

double bytes_of(const cpu::PackedMatrix& matrix) { return static_cast<double>(cpu::packed_bytes(matrix)); }

double bytes_of(const cpu::Mlp& mlp) { return bytes_of(mlp.gate) + bytes_of(mlp.up) + bytes_of(mlp.down); }

}  // namespace

StoredWeights stored_weights(const rs_model* cpu_model) {
  const cpu::Weights& held = cpu::inspect(cpu_model).weights;
  StoredWeights out;
  out.other_bytes = bytes_of(held.lm_head);
  double experts = 0.0;
  for (const cpu::Layer& layer : held.layers) {
    for (const cpu::PackedMatrix* matrix : {&layer.qkv, &layer.dense, &layer.output_gate, &layer.router}) {
      if (matrix->rows > 0) out.other_bytes += bytes_of(*matrix);
    }
    if (layer.always.gate.rows > 0) out.other_bytes += bytes_of(layer.always);
    for (const cpu::Mlp& expert : layer.experts) out.expert_bytes += bytes_of(expert);
    experts += static_cast<double>(layer.experts.size());
  }
  if (experts > 0.0) out.expert_bytes /= experts;
  out.coded = held.layers.front().qkv.is_coded();
  return out;
}

double kv_bytes_per_token(const Config& config, rs_kv_format format) {
  const double value_bytes = format == RS_KV_F32 ? 4.0 : format == RS_KV_BF16 ? 2.0 : 1.0;
  return 2.0 * config.softmax_layers() * config.kv_heads * config.head_dim * value_bytes;
}

double pass_bytes(const Config& config, const StoredWeights& weights, double distinct_experts, double sequences,
                  double kv_tokens, rs_kv_format format) {
  const double d = config.head_dim;
  const double state_bytes = config.linear_layers() * config.heads * d * d * sizeof(float);
  return weights.other_bytes + distinct_experts * weights.expert_bytes +
         sequences * (state_bytes + kv_tokens * kv_bytes_per_token(config, format));
}

double prompt_operations(const Config& config, double tokens, double depth) {
  const double hidden = config.hidden;
  const double d = config.head_dim;
  const double width = config.heads * d;
  const double kv_width = config.kv_heads * d;
  const double linear = config.linear_layers();
  const double softmax = config.softmax_layers();
  const double moe_layers = config.layers - config.dense_layers;
  const double attention = hidden * (linear * 5.0 * width + softmax * (2.0 * width + 2.0 * kv_width));
  const double experts = config.experts_per_token * double{3.0} * config.expert_width;
  const double mlps = moe_layers * hidden * (config.experts + experts + 3.0 * config.shared_width) +
                      config.dense_layers * 3.0 * hidden * config.dense_width;
  // In a chunk: q S, the state's update, and half a tile of scores and of their values.
  const double linear_attention = linear * config.heads * 2.0 * (2.0 * d * d + RS_CHUNK_TOKENS * d);
  const double keys = tokens * depth + tokens * (tokens + 1.0) / 2.0;  // seen by all tokens together
  return tokens * (2.0 * (attention + mlps) + linear_attention) + keys * softmax * config.heads * 4.0 * d +
         2.0 * config.vocab_rows * hidden;
}

}  // namespace ringside::tools
