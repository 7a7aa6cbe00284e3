#include "model/checkpoint_tensors.h"

#include <charconv>

namespace ringside {
namespace {

using Visit = std::function<Status(const ExpectedTensor&)>;

class TensorWalk {
 public:
  TensorWalk(const Config& config, const Visit& visit) : c_(config), visit_(visit) {}

  Status run() {
    RS_CHECK(matrix("model.word_embeddings", c_.vocab_rows, c_.hidden, TensorRole::kEmbedding));
    for (int32_t layer = 0; layer < c_.layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      RS_CHECK(vector(prefix + "input_layernorm.weight", c_.hidden));
      RS_CHECK(attention(prefix + "attention.", c_.is_softmax(layer)));
      RS_CHECK(vector(prefix + "post_attention_layernorm.weight", c_.hidden));
      RS_CHECK(c_.is_dense(layer) ? mlp(prefix + "mlp.", c_.dense_width) : experts(prefix + "mlp."));
    }
    RS_CHECK(vector("model.norm.weight", c_.hidden));
    return matrix("lm_head", c_.vocab_rows, c_.hidden);
  }

 private:
  Status matrix(const std::string& base, int64_t rows, int64_t cols, TensorRole role = TensorRole::kLinear) {
    return visit_(ExpectedTensor{base + ".weight", role, rows, cols});
  }
  Status vector(const std::string& name, int64_t length) {
    return visit_(ExpectedTensor{name, TensorRole::kVector, 1, length});
  }

  // The two kinds of layer give their qkv matrix the same name and different shapes.
  Status attention(const std::string& prefix, bool softmax) {
    const int64_t width = int64_t{c_.heads} * c_.head_dim;
    const int64_t kv_width = softmax ? int64_t{c_.kv_heads} * c_.head_dim : width;
    RS_CHECK(matrix(prefix + "query_key_value", width + 2 * kv_width, c_.hidden));
    RS_CHECK(vector(prefix + "query_layernorm.weight", c_.head_dim));
    RS_CHECK(vector(prefix + "key_layernorm.weight", c_.head_dim));
    if (!softmax) {
      RS_CHECK(matrix(prefix + "g_proj", width, c_.hidden));
      RS_CHECK(vector(prefix + "g_norm.weight", width));
    }
    return matrix(prefix + "dense", c_.hidden, width);
  }

  Status mlp(const std::string& prefix, int64_t width) {
    RS_CHECK(matrix(prefix + "gate_proj", width, c_.hidden));
    RS_CHECK(matrix(prefix + "up_proj", width, c_.hidden));
    return matrix(prefix + "down_proj", c_.hidden, width);
  }

  Status experts(const std::string& prefix) {
    RS_CHECK(matrix(prefix + "gate", c_.experts, c_.hidden, TensorRole::kRouter));
    if (c_.expert_bias) RS_CHECK(vector(prefix + "gate.expert_bias", c_.experts));
    for (int32_t expert = 0; expert < c_.experts; ++expert) {
      RS_CHECK(mlp(prefix + "experts." + std::to_string(expert) + ".", c_.expert_width));
    }
    if (c_.shared_width > 0) RS_CHECK(mlp(prefix + "shared_experts.", c_.shared_width));
    return Unit{};
  }

  const Config& c_;
  const Visit& visit_;
};

}  // namespace

bool is_router_base(std::string_view base) { return base.ends_with(".mlp.gate"); }

Status visit_expected_tensors(const Config& config, const Visit& visit) { return TensorWalk(config, visit).run(); }

bool is_skipped_tensor(std::string_view name, const Config& config) {
  for (const std::string_view part : {"slope", "inv_freq", "v_head", "mtp"}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return false;
  // Multi-token prediction layers stand behind the last one of the network.
  const std::string_view rest = name.substr(kLayers.size());
  uint32_t layer = 0;
  const auto [end, code] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  const bool dotted = end != rest.data() + rest.size() && *end == '.';
  return code == std::errc() && dotted && layer >= static_cast<uint32_t>(config.layers);
}

}  // namespace ringside
