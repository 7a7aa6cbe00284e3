#include "tools/bench_cost.h"

#include <cmath>
#include <string>

#include "model/backend_errors.h"

namespace ringside::tools {
namespace {

double value_bytes(int32_t format) {
  switch (format) {
    case RS_WEIGHT_F32:
      return 4.0;
    case RS_WEIGHT_BF16:
      return 2.0;
    case RS_WEIGHT_Q4:
      return 0.5;
    default:
      return 1.0;
  }
}

// Adds up matrices by looking at their first rows.
class Scale {
 public:
  explicit Scale(const rs_weight_source& source) : source_(source) {}

  Status add(const std::string& base, int64_t rows, int64_t columns, double& bytes) {
    rs_matrix row{};
    rs_error error{};
    if (source_.read_rows(source_.context, base.c_str(), rows, columns, 0, 1, &row, &error) != 0) {
      return to_error(error);
    }
    const auto floats_of_group = (row.scales == nullptr ? 0.0 : 4.0) + (row.offsets == nullptr ? 0.0 : 4.0);
    const int64_t groups = row.group_columns > 0 ? (columns + row.group_columns - 1) / row.group_columns : 0;
    bytes += static_cast<double>(rows) *
             (static_cast<double>(columns) * value_bytes(row.format) + static_cast<double>(groups) * floats_of_group);
    last_format_ = row.format;
    source_.release(source_.context, &row);
    return Unit{};
  }
  Status add_mlp(const std::string& prefix, int64_t width, int64_t hidden, double& bytes) {
    RS_CHECK(add(prefix + "gate_proj", width, hidden, bytes));
    RS_CHECK(add(prefix + "up_proj", width, hidden, bytes));
    return add(prefix + "down_proj", hidden, width, bytes);
  }
  bool last_was_coded() const { return last_format_ != RS_WEIGHT_F32 && last_format_ != RS_WEIGHT_BF16; }

 private:
  const rs_weight_source& source_;
  int32_t last_format_ = RS_WEIGHT_F32;
};

}  // namespace

Result<StoredWeights> stored_weights(const Config& config, const rs_weight_source& source) {
  StoredWeights out;
  Scale scale(source);
  const int64_t hidden = config.hidden;
  const int64_t width = int64_t{config.heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  for (int32_t i = 0; i < config.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const int64_t qkv_rows = config.is_softmax(i) ? width + 2 * kv_width : 3 * width;
    RS_CHECK(scale.add(layer + "attention.query_key_value", qkv_rows, hidden, out.other_bytes));
    out.coded = scale.last_was_coded();
    if (!config.is_softmax(i)) RS_CHECK(scale.add(layer + "attention.g_proj", width, hidden, out.other_bytes));
    RS_CHECK(scale.add(layer + "attention.dense", hidden, width, out.other_bytes));
    if (config.is_dense(i)) {
      RS_CHECK(scale.add_mlp(layer + "mlp.", config.dense_width, hidden, out.other_bytes));
      continue;
    }
    RS_CHECK(scale.add(layer + "mlp.gate", config.experts, hidden, out.other_bytes));
    RS_CHECK(scale.add_mlp(layer + "mlp.experts.0.", config.expert_width, hidden, out.expert_bytes));
    if (config.shared_width > 0) {
      RS_CHECK(scale.add_mlp(layer + "mlp.shared_experts.", config.shared_width, hidden, out.other_bytes));
    }
  }
  if (config.layers > config.dense_layers) out.expert_bytes /= config.layers - config.dense_layers;
  RS_CHECK(scale.add("lm_head", config.vocab_rows, hidden, out.other_bytes));
  return out;
}

double even_experts(const Config& config, double rows) {
  const double missed = 1.0 - static_cast<double>(config.experts_per_token) / config.experts;
  return (config.layers - config.dense_layers) * config.experts * (1.0 - std::pow(missed, rows));
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
