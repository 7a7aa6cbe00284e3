#include <algorithm>
#include <string>

#include "cuda/weights.h"

namespace ringside::cuda {
namespace {

bool is_softmax(const rs_config& config, int64_t layer) {
  return (layer + 1) % config.group == 0 || layer >= config.layers / config.group * config.group;
}

Error refused(const char* name, const std::string& limit, int64_t value) {
  return Error{ErrorKind::kConfigInvalid, name, limit + " on a GPU", std::to_string(value)};
}

Status check_multiple(const char* name, int64_t value, int64_t unit) {
  if (value > 0 && value % unit == 0) return Unit{};
  return refused(name, "a multiple of " + std::to_string(unit), value);
}

Status check_most(const char* name, int64_t value, int64_t most) {
  if (value <= most) return Unit{};
  return refused(name, "at most " + std::to_string(most), value);
}

constexpr int64_t kMostHidden = 32768;        // a block holds a row in its registers
constexpr int64_t kMostNormChannels = 4096;   // a warp holds a group of them likewise
constexpr int64_t kMostHeadsOfKeyHead = 128;  // rows of a block of softmax attention

Status check_attention(const rs_config& config) {
  if (config.head_dim != kHeadDim) return refused("head_dim", std::to_string(kHeadDim), config.head_dim);
  // A lane has eight channels and turns them with the eight of another lane.
  RS_CHECK(check_multiple("rotary_dim", config.rotary_dim, 16));
  RS_CHECK(check_most("rotary_dim", config.rotary_dim, kHeadDim));
  if (config.kv_heads < 1 || config.heads % config.kv_heads != 0) {
    return refused("num_key_value_heads", "a divisor of num_attention_heads", config.kv_heads);
  }
  RS_CHECK(
      check_most("num_attention_heads / num_key_value_heads", config.heads / config.kv_heads, kMostHeadsOfKeyHead));
  const int64_t width = int64_t{config.heads} * kHeadDim;
  if (config.norm_groups < 1 || width % config.norm_groups != 0) {
    return refused("group_norm_size", "a divisor of num_attention_heads × head_dim", config.norm_groups);
  }
  RS_CHECK(check_multiple("channels of a group of group_norm_size", width / config.norm_groups, 8));
  return check_most("channels of a group of group_norm_size", width / config.norm_groups, kMostNormChannels);
}

Status check_mixture(const rs_config& config) {
  RS_CHECK(check_multiple("num_experts", config.experts, kTileRows));
  RS_CHECK(check_multiple("moe_intermediate_size", config.expert_width, kColumnsMultiple));
  if (config.shared_width != 0 && config.shared_width != config.expert_width) {
    return refused("moe_shared_expert_intermediate_size", std::to_string(config.expert_width), config.shared_width);
  }
  if (config.expert_groups < 1 || config.experts % config.expert_groups != 0) {
    return refused("n_group", "a divisor of num_experts", config.expert_groups);
  }
  if (config.groups_per_token < 1 || config.groups_per_token > config.expert_groups) {
    return refused("topk_group", "1.." + std::to_string(config.expert_groups), config.groups_per_token);
  }
  const int64_t eligible = int64_t{config.groups_per_token} * (config.experts / config.expert_groups);
  if (config.experts_per_token >= 1 && config.experts_per_token <= eligible) return Unit{};
  return refused("num_experts_per_tok", "1.." + std::to_string(eligible), config.experts_per_token);
}

}  // namespace

Status check_shape(const rs_config& config) {
  if (config.layers < 1) return refused("num_hidden_layers", "at least 1", config.layers);
  if (config.group < 1) return refused("layer_group_size", "at least 1", config.group);
  RS_CHECK(check_attention(config));
  RS_CHECK(check_multiple("hidden_size", config.hidden, kColumnsMultiple));
  RS_CHECK(check_most("hidden_size", config.hidden, kMostHidden));
  RS_CHECK(check_multiple("vocab_size", config.vocab_rows, kTileRows));
  if (config.dense_layers > 0) RS_CHECK(check_multiple("intermediate_size", config.dense_width, kColumnsMultiple));
  return config.dense_layers < config.layers ? check_mixture(config) : Status(Unit{});
}

void describe_model(const rs_config& config, Weights& weights) {
  weights.slopes.assign(config.slopes, config.slopes + int64_t{config.layers} * config.heads);
  weights.inv_freq.assign(config.inv_freq, config.inv_freq + config.rotary_dim / 2);
  DeviceModel& model = weights.model;
  model.config = config;
  model.config.slopes = weights.slopes.data();
  model.config.inv_freq = weights.inv_freq.data();
  model.width = config.heads * config.head_dim;
  model.kv_width = config.kv_heads * config.head_dim;
  model.has_shared = config.shared_width > 0 ? 1 : 0;
  model.layers.assign(static_cast<size_t>(config.layers), DeviceLayer{});
  model.linear_layers = model.softmax_layers = 0;
  for (int32_t i = 0; i < config.layers; ++i) {
    DeviceLayer& layer = model.layers[static_cast<size_t>(i)];
    layer.is_softmax = is_softmax(config, i) ? 1 : 0;
    layer.is_dense = i < config.dense_layers ? 1 : 0;
    layer.kind_index = layer.is_softmax != 0 ? model.softmax_layers++ : model.linear_layers++;
  }
}

int64_t query_key_value_rows(const DeviceModel& model, const DeviceLayer& layer) {
  return layer.is_softmax != 0 ? model.width + 2 * model.kv_width : 3 * model.width;
}

int64_t planned_weight_bytes(const DeviceModel& model, int32_t format, int64_t group_columns) {
  const rs_config& config = model.config;
  const auto bytes = [&](int64_t rows, int64_t columns) {
    rs_matrix stored{};
    stored.format = format;
    stored.rows = rows;
    stored.cols = columns;
    // Groups that do not divide a narrow matrix are stored as one group a row.
    stored.group_columns = group_columns > 0 && columns % group_columns == 0 ? group_columns : columns;
    const Result<DeviceMatrix> form = device_form("", stored);
    if (!form.ok()) return int64_t{0};
    return form->block_bytes() + form->scale_count() * static_cast<int64_t>(sizeof(float));
  };
  const auto mlp = [&](int64_t width) { return bytes(2 * width, config.hidden) + bytes(config.hidden, width); };
  const int64_t router_parts = format == RS_WEIGHT_F32 ? 3 : 2;
  int64_t total = 2 * bytes(config.vocab_rows, config.hidden);
  for (const DeviceLayer& layer : model.layers) {
    total += bytes(query_key_value_rows(model, layer), config.hidden) + bytes(config.hidden, model.width);
    if (layer.is_softmax == 0) total += bytes(model.width, config.hidden);
    if (layer.is_dense != 0) {
      total += mlp(config.dense_width);
    } else {
      total += (config.experts + model.has_shared) * mlp(config.expert_width);
      total += int64_t{config.experts} * router_parts * config.hidden * static_cast<int64_t>(sizeof(bf16));
    }
  }
  return total;
}

}  // namespace ringside::cuda
