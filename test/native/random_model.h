// Owns: small random models for the native tests: configuration and weights made from a seed, by tensor name.
// The same name, seed and format always give the same values, so two backends can be loaded with equal weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "model/backend.h"

namespace random_model {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ull;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t limit) { return static_cast<int64_t>(next() % static_cast<uint64_t>(limit)); }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) / static_cast<float>(1 << 24);
  }

 private:
  uint64_t state_;
};

inline uint64_t hash_of(const std::string& text) {
  uint64_t hash = 1469598103934665603ull;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  return hash;
}

inline uint16_t bf16_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// A configuration with the arrays it points to. Defaults: tiny, three layers a group, dense first layer.
struct Shape {
  rs_config config{};
  std::vector<float> slopes;
  std::vector<float> inv_freq;

  Shape() {
    config.vocab_rows = 97;
    config.hidden = 64;
    config.layers = 4;
    config.group = 3;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 16;
    config.rotary_dim = 8;
    config.dense_width = 80;
    config.expert_width = 24;
    config.shared_width = 24;
    config.experts = 8;
    config.experts_per_token = 3;
    config.expert_groups = 4;
    config.groups_per_token = 2;
    config.dense_layers = 1;
    config.norm_groups = 2;
    config.context_tokens = 8192;
    config.rms_eps = 1e-6f;
    config.routed_scale = 2.5f;
    config.expert_bias = 1;
  }
  // Fills the arrays; call after the numbers are set.
  const rs_config* ready() {
    slopes.clear();
    inv_freq.clear();
    for (int32_t layer = 0; layer < config.layers; ++layer) {
      const double factor = 1.0 - static_cast<double>(layer) / std::max(1, config.layers - 1) + 1e-5;
      for (int32_t head = 0; head < config.heads; ++head) {
        slopes.push_back(static_cast<float>(base_slope(head) * factor));
      }
    }
    for (int32_t j = 0; j < config.rotary_dim / 2; ++j) {
      inv_freq.push_back(static_cast<float>(std::pow(600000.0, -2.0 * j / config.rotary_dim)));
    }
    config.slopes = slopes.data();
    config.inv_freq = inv_freq.data();
    return &config;
  }

 private:
  // The reference computes the slopes of the specification itself, so these must be the same ones.
  double base_slope(int32_t head) const {
    int32_t power = 1;
    while (2 * power <= config.heads) power *= 2;
    return std::exp2(head < power ? -8.0 * (head + 1) / power : -4.0 * (2 * (head - power) + 1) / power);
  }
};

class Source {
 public:
  Source(uint64_t seed, rs_weight_format format, int64_t group_columns = 32, bool has_offsets = false)
      : seed_(seed), format_(format), group_columns_(group_columns), has_offsets_(has_offsets) {
    table.context = this;
    table.read_matrix = [](void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out, rs_error*) {
      return static_cast<Source*>(context)->matrix(base, rows, cols, out);
    };
    table.release = [](void*, rs_matrix* matrix) { delete static_cast<Data*>(matrix->owner); };
    table.read_vector = [](void* context, const char* name, int64_t length, float* out, rs_error*) {
      return static_cast<Source*>(context)->vector(name, length, out);
    };
  }
  rs_weight_source table{};

 private:
  struct Data {
    std::vector<float> f32;
    std::vector<uint16_t> bf16;
    std::vector<uint8_t> codes;
    std::vector<float> scales, offsets;
  };

  int32_t matrix(const std::string& base, int64_t rows, int64_t cols, rs_matrix* out) {
    auto data = std::make_unique<Data>();
    Random random(hash_of(base) ^ seed_);
    // Routers stay unquantized, as in every checkpoint.
    const bool is_router = base.size() > 8 && base.compare(base.size() - 8, 8, "mlp.gate") == 0;
    const rs_weight_format format = is_router && format_ >= RS_WEIGHT_Q8 ? RS_WEIGHT_BF16 : format_;
    const float reach = 1.7f / std::sqrt(static_cast<float>(cols));
    *out = rs_matrix{format, rows, cols, 0, nullptr, nullptr, nullptr, data.get()};
    if (format == RS_WEIGHT_F32) {
      for (int64_t i = 0; i < rows * cols; ++i) data->f32.push_back(random.uniform(-reach, reach));
      out->data = data->f32.data();
    } else if (format == RS_WEIGHT_BF16) {
      for (int64_t i = 0; i < rows * cols; ++i) data->bf16.push_back(bf16_of(random.uniform(-reach, reach)));
      out->data = data->bf16.data();
    } else {
      fill_coded(random, format, reach, *data, *out);
    }
    (void)data.release();  // owned by the matrix until release()
    return 0;
  }

  void fill_coded(Random& random, rs_weight_format format, float reach, Data& data, rs_matrix& out) const {
    const bool is_q4 = format == RS_WEIGHT_Q4;
    for (int64_t i = 0; i < out.rows * out.cols / (is_q4 ? 2 : 1); ++i) {
      data.codes.push_back(static_cast<uint8_t>(is_q4 ? random.below(256) : random.below(255) - 127));
    }
    out.group_columns = out.cols % group_columns_ == 0 ? group_columns_ : out.cols;
    const float largest_code = is_q4 ? 8.0f : 127.0f;
    for (int64_t i = 0; i < out.rows * (out.cols / out.group_columns); ++i) {
      data.scales.push_back(random.uniform(0.8f, 1.2f) * reach / largest_code);
      if (has_offsets_) data.offsets.push_back(random.uniform(-0.1f, 0.1f) * reach);
    }
    out.data = data.codes.data();
    out.scales = data.scales.data();
    out.offsets = has_offsets_ ? data.offsets.data() : nullptr;
  }

  int32_t vector(const std::string& name, int64_t length, float* out) const {
    Random random(hash_of(name) ^ seed_);
    const bool is_bias = name.find("expert_bias") != std::string::npos;
    for (int64_t i = 0; i < length; ++i) out[i] = is_bias ? random.uniform(-0.2f, 0.2f) : random.uniform(0.7f, 1.3f);
    return 0;
  }

  uint64_t seed_;
  rs_weight_format format_;
  int64_t group_columns_;
  bool has_offsets_;
};

inline std::vector<int32_t> tokens(uint64_t seed, int64_t count, int32_t vocab) {
  Random random(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random.below(vocab)));
  return ids;
}

}  // namespace random_model
