#include <algorithm>
#include <string>

#include "cuda/weights.h"

namespace ringside::cuda {
namespace {

bool is_softmax(const rs_config& config, int64_t layer) {
  return (layer + 1) % config.group == 0 || layer >= config.layers / config.group * config.group;
}

Status check_multiple(const char* name, int64_t value, int64_t unit) {
  if (value % unit == 0) return Unit{};
  return Error{ErrorKind::kConfigInvalid, name, "a multiple of " + std::to_string(unit) + " on a GPU",
               std::to_string(value)};
}

}  // namespace

Status check_shape(const rs_config& config) {
  if (config.head_dim != kHeadDim) {
    return Error{ErrorKind::kConfigInvalid, "head_dim", std::to_string(kHeadDim) + " on a GPU",
                 std::to_string(config.head_dim)};
  }
  RS_CHECK(check_multiple("hidden_size", config.hidden, kColumnsMultiple));
  RS_CHECK(check_multiple("vocab_size", config.vocab_rows, kTileRows));
  if (config.dense_layers > 0) RS_CHECK(check_multiple("intermediate_size", config.dense_width, kColumnsMultiple));
  if (config.dense_layers >= config.layers) return Unit{};
  RS_CHECK(check_multiple("num_experts", config.experts, kTileRows));
  RS_CHECK(check_multiple("moe_intermediate_size", config.expert_width, kColumnsMultiple));
  if (config.shared_width == 0 || config.shared_width == config.expert_width) return Unit{};
  return Error{ErrorKind::kConfigInvalid, "moe_shared_expert_intermediate_size",
               std::to_string(config.expert_width) + " on a GPU", std::to_string(config.shared_width)};
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
