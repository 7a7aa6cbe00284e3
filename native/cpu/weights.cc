// Owns: the list of tensors of the family (specification section 7) and their way from the checkpoint into tiles.
#include "cpu/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "model/backend_errors.h"

namespace ringside::cpu {
namespace {

// Gives a lent matrix back however the reader leaves.
class LentMatrix {
 public:
  explicit LentMatrix(const rs_weight_source& source) : source_(source) {}
  ~LentMatrix() {
    if (is_lent_) source_.release(source_.context, &matrix_);
  }
  LentMatrix(const LentMatrix&) = delete;
  LentMatrix& operator=(const LentMatrix&) = delete;

  Status read(const std::string& base, int64_t rows, int64_t columns) {
    rs_error error{};
    if (source_.read_matrix(source_.context, base.c_str(), rows, columns, &matrix_, &error) != 0) {
      return to_error(error);
    }
    is_lent_ = true;
    const bool is_known =
        matrix_.format == RS_WEIGHT_F32 || matrix_.format == RS_WEIGHT_BF16 || matrix_.format == RS_WEIGHT_Q8;
    if (!is_known) {
      return Error{ErrorKind::kQuantizationUnsupported, base, "F32, BF16 or Q8", std::to_string(matrix_.format)};
    }
    if (matrix_.format == RS_WEIGHT_Q8 && (matrix_.group_columns < 1 || columns % matrix_.group_columns != 0)) {
      return Error{ErrorKind::kQuantizationUnsupported, base,
                   "groups that divide " + std::to_string(columns) + " columns", std::to_string(matrix_.group_columns)};
    }
    return Unit{};
  }
  const rs_matrix& get() const { return matrix_; }
  rs_weight_format format() const { return static_cast<rs_weight_format>(matrix_.format); }

 private:
  const rs_weight_source& source_;
  rs_matrix matrix_{};
  bool is_lent_ = false;
};

int64_t matrix_count(const Shape& shape) {
  const rs_config& config = shape.config;
  const int64_t moe_layers = std::max<int64_t>(0, config.layers - config.dense_layers);
  const int64_t mlps = (config.layers - moe_layers) + moe_layers * (config.experts + (config.shared_width > 0 ? 1 : 0));
  return 2 + 2 * config.layers + shape.linear_layers + moe_layers + 3 * mlps;
}

class Loader {
 public:
  Loader(const Shape& shape, const rs_weight_source& source, const rs_load_options& options, ThreadPool& pool,
         Weights& out)
      : shape_(shape), source_(source), options_(options), pool_(pool), out_(out), total_(matrix_count(shape)) {}

  Status load() {
    const rs_config& config = shape_.config;
    RS_CHECK(load_embedding());
    out_.layers.resize(static_cast<size_t>(config.layers));
    int64_t linear = 0;
    int64_t softmax = 0;
    for (int64_t i = 0; i < config.layers; ++i) {
      Layer& layer = out_.layers[static_cast<size_t>(i)];
      layer.is_softmax = shape_.is_softmax(i);
      layer.kind_index = layer.is_softmax ? softmax++ : linear++;
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      RS_CHECK(load_attention(i, prefix, layer));
      RS_CHECK(load_feed_forward(i, prefix, layer));
    }
    RS_CHECK(vector("model.norm.weight", config.hidden, out_.final_norm));
    return matrix("lm_head", config.vocab_rows, config.hidden, out_.lm_head);
  }

 private:
  Status load_attention(int64_t index, const std::string& prefix, Layer& layer) {
    const rs_config& config = shape_.config;
    const int64_t width = shape_.attention_width;
    const std::string attention = prefix + "attention.";
    RS_CHECK(vector(prefix + "input_layernorm.weight", config.hidden, layer.input_norm));
    RS_CHECK(vector(prefix + "post_attention_layernorm.weight", config.hidden, layer.post_attention_norm));
    RS_CHECK(vector(attention + "query_layernorm.weight", config.head_dim, layer.query_norm));
    RS_CHECK(vector(attention + "key_layernorm.weight", config.head_dim, layer.key_norm));
    RS_CHECK(matrix(attention + "query_key_value", shape_.qkv_width(index), config.hidden, layer.qkv));
    RS_CHECK(matrix(attention + "dense", config.hidden, width, layer.dense));
    if (layer.is_softmax) return Unit{};
    RS_CHECK(matrix(attention + "g_proj", width, config.hidden, layer.output_gate));
    RS_CHECK(vector(attention + "g_norm.weight", width, layer.output_norm));
    layer.decay.reserve(static_cast<size_t>(config.heads * (kChunkTokens + 1)));
    for (int64_t head = 0; head < config.heads; ++head) {
      const double slope = shape_.slopes[static_cast<size_t>(index * config.heads + head)];
      for (int64_t n = 0; n <= kChunkTokens; ++n) {
        layer.decay.push_back(static_cast<float>(std::exp(-slope * static_cast<double>(n))));
      }
    }
    return Unit{};
  }

  Status load_feed_forward(int64_t index, const std::string& prefix, Layer& layer) {
    const rs_config& config = shape_.config;
    const std::string mlp_prefix = prefix + "mlp.";
    if (shape_.is_dense(index)) return mlp(mlp_prefix, config.dense_width, layer.always);
    RS_CHECK(matrix(mlp_prefix + "gate", config.experts, config.hidden, layer.router));
    layer.expert_bias.assign(static_cast<size_t>(config.experts), 0.0f);
    if (config.expert_bias != 0) RS_CHECK(vector(mlp_prefix + "gate.expert_bias", config.experts, layer.expert_bias));
    layer.experts.resize(static_cast<size_t>(config.experts));
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      RS_CHECK(mlp(mlp_prefix + "experts." + std::to_string(e) + ".", config.expert_width, layer.experts[e]));
    }
    if (config.shared_width == 0) return Unit{};
    return mlp(mlp_prefix + "shared_experts.", config.shared_width, layer.always);
  }

  Status mlp(const std::string& prefix, int64_t width, Mlp& to) {
    RS_CHECK(matrix(prefix + "gate_proj", width, shape_.config.hidden, to.gate));
    RS_CHECK(matrix(prefix + "up_proj", width, shape_.config.hidden, to.up));
    return matrix(prefix + "down_proj", shape_.config.hidden, width, to.down);
  }

  Status matrix(const std::string& base, int64_t rows, int64_t columns, PackedMatrix& to) {
    LentMatrix lent(source_);
    RS_CHECK(lent.read(base, rows, columns));
    to = packed_shape(lent.format(), rows, columns, lent.get().group_columns);
    out_.largest_group_columns = std::max(out_.largest_group_columns, to.group_columns);
    RS_TRY(uint8_t * tiles, out_.arena.allocate(packed_tile_bytes(to), "weights"));
    float* scales = nullptr;
    if (packed_scale_bytes(to) > 0) {
      RS_TRY(uint8_t * bytes, out_.arena.allocate(packed_scale_bytes(to), "weights"));
      scales = reinterpret_cast<float*>(bytes);
    }
    pool_.run(to.tile_count(), [&](int64_t tile, int) { pack_tile(lent.get(), to, tile, tiles, scales); });
    to.tiles = tiles;
    to.scales = scales;
    return advance();
  }

  Status load_embedding() {
    const int64_t rows = shape_.config.vocab_rows;
    const int64_t columns = shape_.config.hidden;
    LentMatrix lent(source_);
    RS_CHECK(lent.read("model.word_embeddings", rows, columns));
    Embedding& to = out_.embedding;
    to.format = lent.format();
    to.columns = columns;
    to.group_columns = lent.get().group_columns;
    const int64_t element_bytes = to.format == RS_WEIGHT_F32 ? 4 : to.format == RS_WEIGHT_BF16 ? 2 : 1;
    RS_TRY(uint8_t * data, out_.arena.allocate(rows * columns * element_bytes, "weights"));
    std::memcpy(data, lent.get().data, static_cast<size_t>(rows * columns * element_bytes));
    to.data = data;
    if (to.format == RS_WEIGHT_Q8) {
      const int64_t bytes = rows * (columns / to.group_columns) * static_cast<int64_t>(sizeof(float));
      RS_TRY(uint8_t * scales, out_.arena.allocate(bytes, "weights"));
      std::memcpy(scales, lent.get().scales, static_cast<size_t>(bytes));
      to.scales = reinterpret_cast<const float*>(scales);
    }
    return advance();
  }

  Status vector(const std::string& name, int64_t length, std::vector<float>& to) {
    to.assign(static_cast<size_t>(length), 0.0f);
    rs_error error{};
    if (source_.read_vector(source_.context, name.c_str(), length, to.data(), &error) != 0) return to_error(error);
    return Unit{};
  }

  Status advance() {
    ++done_;
    const float fraction = static_cast<float>(done_) / static_cast<float>(total_);
    if (options_.progress != nullptr && options_.progress(options_.progress_context, fraction) != 0) {
      return Error{ErrorKind::kCancelled, "load", "", ""};
    }
    return Unit{};
  }

  const Shape& shape_;
  const rs_weight_source& source_;
  const rs_load_options& options_;
  ThreadPool& pool_;
  Weights& out_;
  int64_t total_;
  int64_t done_ = 0;
};

}  // namespace

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

void Embedding::row(int64_t index, float* out) const {
  const int64_t first = index * columns;
  if (format == RS_WEIGHT_F32) {
    std::memcpy(out, static_cast<const float*>(data) + first, static_cast<size_t>(columns) * sizeof(float));
    return;
  }
  if (format == RS_WEIGHT_BF16) {
    const uint16_t* from = static_cast<const uint16_t*>(data) + first;
    for (int64_t c = 0; c < columns; ++c) {
      const uint32_t bits = static_cast<uint32_t>(from[c]) << 16;
      std::memcpy(out + c, &bits, sizeof bits);
    }
    return;
  }
  const int8_t* from = static_cast<const int8_t*>(data) + first;
  const float* row_scales = scales + index * (columns / group_columns);
  for (int64_t c = 0; c < columns; ++c) out[c] = static_cast<float>(from[c]) * row_scales[c / group_columns];
}

Status load_weights(const Shape& shape, const rs_weight_source& source, const rs_load_options& options,
                    ThreadPool& pool, Weights& out) {
  return Loader(shape, source, options, pool, out).load();
}

int64_t planned_weight_bytes(const Shape& shape, rs_weight_format format, int64_t group_columns) {
  const rs_config& config = shape.config;
  const auto bytes = [&](int64_t rows, int64_t columns) {
    // Groups that do not divide a narrow matrix are stored as one group a row.
    const bool divides = group_columns > 0 && columns % group_columns == 0;
    const PackedMatrix packed = packed_shape(format, rows, columns, divides ? group_columns : columns);
    return packed_tile_bytes(packed) + packed_scale_bytes(packed);
  };
  const auto mlp = [&](int64_t width) {
    return width == 0 ? 0 : 2 * bytes(width, config.hidden) + bytes(config.hidden, width);
  };
  const rs_weight_format router_format = format == RS_WEIGHT_F32 ? RS_WEIGHT_F32 : RS_WEIGHT_BF16;
  int64_t total = 2 * bytes(config.vocab_rows, config.hidden);
  for (int64_t i = 0; i < config.layers; ++i) {
    total += bytes(shape.qkv_width(i), config.hidden) + bytes(config.hidden, shape.attention_width);
    if (!shape.is_softmax(i)) total += bytes(shape.attention_width, config.hidden);
    if (shape.is_dense(i)) {
      total += mlp(config.dense_width);
    } else {
      total += packed_tile_bytes(packed_shape(router_format, config.experts, config.hidden, 0));
      total += config.experts * mlp(config.expert_width) + mlp(config.shared_width);
    }
  }
  return total;
}

}  // namespace ringside::cpu
