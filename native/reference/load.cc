#include "load.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "../model/backend_errors.h"

namespace ringside::reference {
namespace {

class Reader {
 public:
  Reader(const rs_config& config, const rs_weight_source& source, const rs_load_options& options)
      : config_(config), source_(source), options_(options) {}

  Status read_model(Weights& weights) {
    RS_CHECK(read("model.word_embeddings", config_.vocab_rows, config_.hidden, weights.embeddings));
    weights.layers.resize(static_cast<size_t>(config_.layers));
    for (int32_t i = 0; i < config_.layers; ++i) {
      RS_CHECK(read_layer(i, weights.layers[static_cast<size_t>(i)]));
      const float fraction = static_cast<float>(i + 1) / static_cast<float>(config_.layers + 1);
      if (options_.progress != nullptr && options_.progress(options_.progress_context, fraction) != 0) {
        return Error{ErrorKind::kCancelled, "load", "", ""};
      }
    }
    RS_CHECK(read("model.norm.weight", config_.hidden, weights.norm));
    return read("lm_head", config_.vocab_rows, config_.hidden, weights.lm_head);
  }

 private:
  Status read_layer(int32_t index, Layer& layer) {
    const std::string base = "model.layers." + std::to_string(index);
    const std::string attention = base + ".attention.";
    const int64_t hidden = config_.hidden;
    const int64_t width = static_cast<int64_t>(config_.heads) * config_.head_dim;
    layer.softmax = is_softmax(config_, index);
    const int64_t kv_heads = layer.softmax ? config_.kv_heads : config_.heads;
    RS_CHECK(read(base + ".input_layernorm.weight", hidden, layer.input_norm));
    RS_CHECK(read(base + ".post_attention_layernorm.weight", hidden, layer.post_norm));
    RS_CHECK(read(attention + "query_key_value", width + 2 * kv_heads * config_.head_dim, hidden, layer.qkv));
    RS_CHECK(read(attention + "query_layernorm.weight", config_.head_dim, layer.q_norm));
    RS_CHECK(read(attention + "key_layernorm.weight", config_.head_dim, layer.k_norm));
    RS_CHECK(read(attention + "dense", hidden, width, layer.dense));
    if (!layer.softmax) {
      RS_CHECK(read(attention + "g_proj", width, hidden, layer.g_proj));
      RS_CHECK(read(attention + "g_norm.weight", width, layer.g_norm));
    }
    if (index < config_.dense_layers) return read_mlp(base + ".mlp", config_.dense_width, layer.mlp);
    return read_experts(base + ".mlp", layer);
  }

  Status read_experts(const std::string& base, Layer& layer) {
    RS_CHECK(read(base + ".gate", config_.experts, config_.hidden, layer.router));
    if (config_.expert_bias != 0) RS_CHECK(read(base + ".gate.expert_bias", config_.experts, layer.expert_bias));
    layer.experts.resize(static_cast<size_t>(config_.experts));
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      RS_CHECK(read_mlp(base + ".experts." + std::to_string(e), config_.expert_width, layer.experts[e]));
    }
    if (config_.shared_width > 0) RS_CHECK(read_mlp(base + ".shared_experts", config_.shared_width, layer.mlp));
    return Unit{};
  }

  Status read_mlp(const std::string& base, int64_t width, Mlp& mlp) {
    RS_CHECK(read(base + ".gate_proj", width, config_.hidden, mlp.gate));
    RS_CHECK(read(base + ".up_proj", width, config_.hidden, mlp.up));
    return read(base + ".down_proj", config_.hidden, width, mlp.down);
  }

  Status read(const std::string& name, int64_t length, std::vector<float>& out) {
    out.resize(static_cast<size_t>(length));
    rs_error error{};
    if (source_.read_vector(source_.context, name.c_str(), length, out.data(), &error) != 0) return to_error(error);
    return Unit{};
  }

  Status read(const std::string& base, int64_t rows, int64_t cols, Weight& out) {
    out.rows = rows;
    out.cols = cols;
    out.values.resize(static_cast<size_t>(rows * cols));
    rs_matrix matrix{};
    rs_error error{};
    if (source_.read_matrix(source_.context, base.c_str(), rows, cols, &matrix, &error) != 0) return to_error(error);
    const bool known = dequantise(matrix, out.values);
    source_.release(source_.context, &matrix);
    if (!known)
      return Error{ErrorKind::kTensorDtype, base, "a format of rs_weight_format", std::to_string(matrix.format)};
    return Unit{};
  }

  static bool dequantise(const rs_matrix& matrix, std::vector<float>& out) {
    switch (matrix.format) {
      case RS_WEIGHT_F32:
        std::memcpy(out.data(), matrix.data, out.size() * sizeof(float));
        return true;
      case RS_WEIGHT_BF16: {
        const auto* halves = static_cast<const uint16_t*>(matrix.data);
        for (size_t i = 0; i < out.size(); ++i) {
          const uint32_t bits = static_cast<uint32_t>(halves[i]) << 16;
          std::memcpy(&out[i], &bits, sizeof bits);
        }
        return true;
      }
      case RS_WEIGHT_Q8: {
        const auto* codes = static_cast<const int8_t*>(matrix.data);
        decode(matrix, out, [&](size_t i) { return static_cast<float>(codes[i]); });
        return true;
      }
      case RS_WEIGHT_Q4: {
        const auto* pairs = static_cast<const uint8_t*>(matrix.data);  // rows have even length: no pair spans two
        decode(matrix, out, [&](size_t i) { return static_cast<float>((pairs[i / 2] >> (i % 2 * 4) & 15) - 8); });
        return true;
      }
      case RS_WEIGHT_FP8: {
        const auto* codes = static_cast<const uint8_t*>(matrix.data);
        decode(matrix, out, [&](size_t i) { return e4m3(codes[i]); });
        return true;
      }
      default:
        return false;
    }
  }

  template <class Code>
  static void decode(const rs_matrix& matrix, std::vector<float>& out, const Code& code) {
    const int64_t groups = (matrix.cols + matrix.group_columns - 1) / matrix.group_columns;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t col = 0; col < matrix.cols; ++col) {
        const auto i = static_cast<size_t>(row * matrix.cols + col);
        const int64_t group = row * groups + col / matrix.group_columns;
        const double offset = matrix.offsets == nullptr ? 0.0 : static_cast<double>(matrix.offsets[group]);
        // Exact in double, so that the value is rounded once.
        out[i] = static_cast<float>(static_cast<double>(code(i)) * static_cast<double>(matrix.scales[group]) + offset);
      }
    }
  }

  // Sign, four bits of exponent with bias 7, three of fraction; no infinities, all ones is not a number.
  static float e4m3(uint8_t code) {
    const int exponent = code >> 3 & 15;
    const int fraction = code & 7;
    float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                    : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    if ((code & 0x7f) == 0x7f) magnitude = std::numeric_limits<float>::quiet_NaN();
    return (code & 0x80) != 0 ? -magnitude : magnitude;
  }

  const rs_config& config_;
  const rs_weight_source& source_;
  const rs_load_options& options_;
};

int64_t bytes_of(const Weight& weight) { return static_cast<int64_t>(weight.values.size() * sizeof(float)); }
int64_t bytes_of(const Mlp& mlp) { return bytes_of(mlp.gate) + bytes_of(mlp.up) + bytes_of(mlp.down); }

}  // namespace

Result<std::unique_ptr<Weights>> load_weights(const rs_config& config, const rs_weight_source& source,
                                              const rs_load_options& options) {
  auto weights = std::make_unique<Weights>();
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (int32_t head = 0; head < config.heads; ++head) weights->slopes.push_back(slope(config, layer, head));
  }
  weights->inv_freq.assign(config.inv_freq, config.inv_freq + config.rotary_dim / 2);
  weights->config = config;
  weights->config.slopes = nullptr;
  weights->config.inv_freq = nullptr;
  RS_CHECK(Reader(weights->config, source, options).read_model(*weights));
  return weights;
}

int64_t weight_bytes(const Weights& weights) {
  int64_t bytes = bytes_of(weights.embeddings) + bytes_of(weights.lm_head);
  for (const Layer& layer : weights.layers) {
    bytes += bytes_of(layer.qkv) + bytes_of(layer.dense) + bytes_of(layer.g_proj) + bytes_of(layer.router) +
             bytes_of(layer.mlp);
    for (const Mlp& expert : layer.experts) bytes += bytes_of(expert);
  }
  return bytes;
}

}  // namespace ringside::reference
