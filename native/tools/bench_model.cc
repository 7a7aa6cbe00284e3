// Owns: shapes by name, random weights and the arithmetic of one token.
#include "tools/bench_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "model/checkpoint_lending.h"
#include "model/loaded_model.h"

namespace ringside::tools {
namespace {

// Small, so that residuals stay tame; the values do not matter otherwise.
constexpr float kWeightReach = 0.05f;
constexpr int64_t kGroupColumns = 128;
constexpr int64_t kOffsets = 4096;  // each tensor starts elsewhere in the block, so that no two experts are equal

Config base_shape() {
  Config config{};
  config.head_dim = 128;
  config.rotary_dim = 64;
  config.dense_layers = 1;
  config.context_tokens = 131072;
  config.rms_eps = 1e-6f;
  config.routed_scale = 2.5f;
  config.rope_theta = 1e6;
  config.expert_bias = true;
  return config;
}

Config nano_shape(int32_t layers, int32_t group) {
  Config config = base_shape();
  config.vocab_rows = 16384;
  config.hidden = 512;
  config.layers = layers;
  config.group = group;
  config.heads = 4;
  config.kv_heads = 2;
  config.dense_width = 1024;
  config.expert_width = 256;
  config.shared_width = 256;
  config.experts = 16;
  config.experts_per_token = 2;
  config.expert_groups = 4;
  config.groups_per_token = 2;
  config.norm_groups = 2;
  return config;
}

Config large_shape(int32_t hidden, int32_t layers, int32_t group, int32_t heads, int32_t dense, int32_t expert) {
  Config config = base_shape();
  config.vocab_rows = 157184;
  config.hidden = hidden;
  config.layers = layers;
  config.group = group;
  config.heads = heads;
  config.kv_heads = 4;
  config.dense_width = dense;
  config.expert_width = expert;
  config.shared_width = expert;
  config.experts = 256;
  config.experts_per_token = 8;
  config.expert_groups = 8;
  config.groups_per_token = 4;
  config.norm_groups = 4;
  return config;
}

// Lends one block of random numbers as every matrix, each from an offset made from its name.
class RandomWeights {
 public:
  RandomWeights(const Config& config, rs_weight_format format) : format_(format) {
    int64_t largest = int64_t{config.vocab_rows} * config.hidden;
    largest = std::max(largest, int64_t{3} * config.heads * config.head_dim * config.hidden);
    largest = std::max(largest, int64_t{config.dense_width} * config.hidden);
    uint64_t state = 0x2545f4914f6cdd1dull;
    const auto next = [&state] {
      state ^= state << 13;
      state ^= state >> 7;
      return state ^= state << 17;
    };
    if (format == RS_WEIGHT_Q8) {
      bytes_.resize(static_cast<size_t>(largest + kOffsets + 8));
      for (size_t i = 0; i + 8 <= bytes_.size(); i += 8) {
        const uint64_t word = next();
        std::memcpy(bytes_.data() + i, &word, sizeof word);
      }
      scales_.assign(static_cast<size_t>(largest / kGroupColumns + 1), kWeightReach / 127.0f);
    }
    // Routers stay in bf16 whatever the rest is.
    const int64_t halves = format == RS_WEIGHT_Q8 ? int64_t{config.experts} * config.hidden : largest;
    halves_.resize(static_cast<size_t>(halves + kOffsets));
    for (uint16_t& half : halves_) {
      const float value = kWeightReach * static_cast<float>(static_cast<int32_t>(next() >> 32)) / 2147483648.0f;
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      half = static_cast<uint16_t>(bits >> 16);
    }
  }
  rs_weight_source source() { return {this, read_matrix, release, read_vector, nullptr}; }

 private:
  static int32_t read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out, rs_error*) {
    const auto& self = *static_cast<const RandomWeights*>(context);
    const std::string name = base;
    const size_t offset = std::hash<std::string>{}(name) % kOffsets;
    const bool is_quantized = self.format_ == RS_WEIGHT_Q8 && !name.ends_with("mlp.gate");
    if (is_quantized) {
      *out = {RS_WEIGHT_Q8, rows, cols, kGroupColumns, self.bytes_.data() + offset, self.scales_.data(), nullptr,
              nullptr};
    } else {
      *out = {RS_WEIGHT_BF16, rows, cols, 0, self.halves_.data() + offset, nullptr, nullptr, nullptr};
    }
    return 0;
  }
  static void release(void*, rs_matrix*) {}
  static int32_t read_vector(void*, const char* name, int64_t length, float* out, rs_error*) {
    const bool is_bias = std::string(name).ends_with("expert_bias");
    std::fill_n(out, length, is_bias ? 0.0f : 1.0f);
    return 0;
  }

  rs_weight_format format_;
  std::vector<int8_t> bytes_;
  std::vector<uint16_t> halves_;
  std::vector<float> scales_;
};

class RandomModel final : public BenchModel {
 public:
  RandomModel(Config config, rs_model* handle) : config_(std::move(config)), handle_(handle) {}
  ~RandomModel() override { rs_cpu_backend()->unload(handle_); }
  const Config& config() const override { return config_; }
  const rs_backend& backend() const override { return *rs_cpu_backend(); }
  rs_model* handle() const override { return handle_; }

 private:
  Config config_;
  rs_model* handle_;
};

class CheckpointModel final : public BenchModel {
 public:
  explicit CheckpointModel(std::shared_ptr<LoadedModel> model) : model_(std::move(model)) {}
  const Config& config() const override { return model_->config(); }
  const rs_backend& backend() const override { return model_->backend(); }
  rs_model* handle() const override { return model_->handle(); }

 private:
  std::shared_ptr<LoadedModel> model_;
};

}  // namespace

std::optional<Config> shape_by_name(const std::string& name) {
  if (name == "nano") return nano_shape(9, 3);
  if (name == "nano8") return nano_shape(8, 4);
  if (name == "mini") return large_shape(2048, 20, 5, 16, 5120, 512);
  if (name == "flash") return large_shape(4096, 32, 8, 32, 9216, 1024);
  return std::nullopt;
}

Result<std::unique_ptr<BenchModel>> random_model(const Config& config, rs_weight_format format, int threads,
                                                 const std::string& isa) {
  const PlainConfig plain(config);
  RandomWeights weights(config, format);
  const rs_weight_source source = weights.source();
  const rs_load_options options{threads, isa.c_str(), RS_KV_BF16, nullptr, nullptr};
  rs_model* handle = nullptr;
  rs_error error{};
  if (rs_cpu_backend()->load(plain.get(), &source, &options, &handle, &error) != 0) return to_error(error);
  return std::unique_ptr<BenchModel>(std::make_unique<RandomModel>(config, handle));
}

Result<std::unique_ptr<BenchModel>> checkpoint_model(const std::string& folder, int threads, const std::string& isa) {
  LoadOptions options;
  options.folder = folder;
  options.backend = "cpu";
  options.threads = threads;
  options.isa = isa;
  RS_TRY(std::shared_ptr<Model> model, LoadedModel::load(options));
  return std::unique_ptr<BenchModel>(
      std::make_unique<CheckpointModel>(std::static_pointer_cast<LoadedModel>(std::move(model))));
}

TokenCost token_cost(const Config& config) {
  const double hidden = config.hidden;
  const double d = config.head_dim;
  const double width = config.heads * d;
  const double kv_width = config.kv_heads * d;
  const double moe_layers = config.layers - config.dense_layers;
  const double linear = config.linear_layers();
  const double softmax = config.softmax_layers();
  const double attention = hidden * (linear * 5.0 * width + softmax * (2.0 * width + 2.0 * kv_width));
  const double shared = moe_layers * hidden * (config.experts + 3.0 * config.shared_width);
  const double dense = config.dense_layers * 3.0 * hidden * config.dense_width;
  const double expert = moe_layers * 3.0 * hidden * config.expert_width;
  const double vocabulary = static_cast<double>(config.vocab_rows) * hidden;

  TokenCost cost{};
  cost.read_parameters = attention + shared + dense + expert * config.experts_per_token;
  cost.active_parameters = cost.read_parameters + vocabulary + hidden;
  cost.total_parameters = attention + shared + dense + expert * config.experts + 2.0 * vocabulary;
  cost.state_bytes = linear * config.heads * d * d * sizeof(float);
  cost.cache_bytes_per_token = softmax * 2.0 * kv_width * sizeof(float);
  // In a chunk of 64: reading the state, half a score tile and its values, and one share of the state's update.
  const double chunk = cpu::kChunkTokens;
  cost.linear_attention_flops = linear * config.heads * 2.0 * (2.0 * d * d + chunk * d);
  cost.softmax_flops_per_key = softmax * config.heads * 4.0 * d;
  return cost;
}

}  // namespace ringside::tools
