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
    return Unit{};
  }
  const rs_matrix& get() const { return matrix_; }

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
    RS_CHECK(router(mlp_prefix + "gate", config.experts, config.hidden, layer.router));
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
    RS_TRY(to, packed_shape(base, lent.get()));
    return pack(lent.get(), to);
  }

  // A router is multiplied in fp32 whatever it is stored in: close scores decide which experts run.
  Status router(const std::string& base, int64_t rows, int64_t columns, PackedMatrix& to) {
    LentMatrix lent(source_);
    RS_CHECK(lent.read(base, rows, columns));
    to = packed_shape_unquantized(lent.get());
    return pack(lent.get(), to);
  }

  Status pack(const rs_matrix& stored, PackedMatrix& to) {
    RS_TRY(uint8_t * tiles, out_.arena.allocate(packed_bytes(to), "weights"));
    pool_.run(to.tile_count(),
              [&](int64_t tile, int) { pack_tile(stored, tile * kTileRows, to, tiles + tile * to.tile_bytes()); });
    to.tiles = tiles;
    return advance();
  }

  Status load_embedding() {
    LentMatrix lent(source_);
    RS_CHECK(lent.read("model.word_embeddings", shape_.config.vocab_rows, shape_.config.hidden));
    rs_matrix& to = out_.embedding.stored;
    to = lent.get();
    to.owner = nullptr;
    RS_TRY(to.data, copy(to.data, to.rows * stored_row_bytes(to.format, to.cols)));
    const int64_t scale_bytes = to.rows * stored_groups(to) * static_cast<int64_t>(sizeof(float));
    RS_TRY(const uint8_t* scales, copy(to.scales, scale_bytes));
    RS_TRY(const uint8_t* offsets, copy(to.offsets, to.offsets == nullptr ? 0 : scale_bytes));
    to.scales = reinterpret_cast<const float*>(scales);
    to.offsets = reinterpret_cast<const float*>(offsets);
    return advance();
  }

  Result<const uint8_t*> copy(const void* from, int64_t bytes) {
    if (bytes == 0) return static_cast<const uint8_t*>(nullptr);
    RS_TRY(uint8_t * to, out_.arena.allocate(bytes, "weights"));
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return static_cast<const uint8_t*>(to);
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

Status load_weights(const Shape& shape, const rs_weight_source& source, const rs_load_options& options,
                    ThreadPool& pool, Weights& out) {
  return Loader(shape, source, options, pool, out).load();
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
