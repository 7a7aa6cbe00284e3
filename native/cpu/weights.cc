// Owns: the shape numbers derived from a configuration, and the memory that its weights will take.
#include "cpu/weights.h"

#include <algorithm>

namespace ringside::cpu {

Shape::Shape(const rs_config& given)
    : config(given),
      slopes(given.slopes, given.slopes + int64_t{given.layers} * given.heads),
      inv_freq(given.inv_freq, given.inv_freq + given.rotary_dim / 2),
      attention_width(int64_t{given.heads} * given.head_dim),
      kv_width(int64_t{given.kv_heads} * given.head_dim),
      linear_layers(0),
      largest_mlp_width(std::max(given.dense_layers > 0 ? given.dense_width : 0, given.shared_width)) {
  config.slopes = slopes.data();
  config.inv_freq = inv_freq.data();
  for (int64_t i = 0; i < config.layers; ++i) linear_layers += is_softmax(i) ? 0 : 1;
  softmax_layers = config.layers - linear_layers;
}

int64_t planned_weight_bytes(const Shape& shape, rs_weight_format format, int64_t group_columns) {
  const rs_config& config = shape.config;
  const auto bytes = [&](rs_weight_format stored_in, int64_t rows, int64_t columns) {
    rs_matrix stored{};
    stored.format = stored_in;
    stored.rows = rows;
    stored.cols = columns;
    // Groups that do not divide a narrow matrix are stored as one group a row.
    stored.group_columns = group_columns > 0 && columns % group_columns == 0 ? group_columns : columns;
    const Result<PackedMatrix> packed = packed_shape("", stored);
    return packed ? packed_bytes(packed.value()) : 0;
  };
  const auto in_format = [&](int64_t rows, int64_t columns) { return bytes(format, rows, columns); };
  const auto mlp = [&](int64_t width) {
    return width == 0 ? 0 : 2 * in_format(width, config.hidden) + in_format(config.hidden, width);
  };
  const rs_weight_format router_format = format == RS_WEIGHT_F32 ? RS_WEIGHT_F32 : RS_WEIGHT_BF16;
  int64_t total = 2 * in_format(config.vocab_rows, config.hidden);
  for (int64_t i = 0; i < config.layers; ++i) {
    total += in_format(shape.qkv_width(i), config.hidden) + in_format(config.hidden, shape.attention_width);
    if (!shape.is_softmax(i)) total += in_format(shape.attention_width, config.hidden);
    if (shape.is_dense(i)) {
      total += mlp(config.dense_width);
    } else {
      total += bytes(router_format, config.experts, config.hidden);
      total += config.experts * mlp(config.expert_width) + mlp(config.shared_width);
    }
  }
  return total;
}

}  // namespace ringside::cpu
