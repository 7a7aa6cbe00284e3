// Owns: random weights of the exact mini shape for timings, lent from a few megabytes of memory, so that a load is as
// fast as packing and the bus.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "random_model.h"

namespace mini_model {

inline random_model::Shape shape() {
  random_model::Shape shape;
  rs_config& config = shape.config;
  config.vocab_rows = 157184;
  config.hidden = 2048;
  config.layers = 20;
  config.group = 5;
  config.heads = 16;
  config.kv_heads = 4;
  config.head_dim = 128;
  config.rotary_dim = 64;
  config.dense_width = 5120;
  config.expert_width = config.shared_width = 512;
  config.experts = 256;
  config.experts_per_token = 8;
  config.expert_groups = 8;
  config.groups_per_token = 4;
  config.norm_groups = 4;
  config.context_tokens = 131072;
  return shape;
}

// Every slice of a matrix is a window of the same random bytes, another for each name.
class Source {
 public:
  explicit Source(rs_weight_format format) : format_(format), codes_(kBytes), scales_(kBytes / 64) {
    random_model::Random random(5);
    for (uint8_t& code : codes_) code = static_cast<uint8_t>(random.next());
    for (float& scale : scales_) scale = random.uniform(0.8f, 1.2f) / (format == RS_WEIGHT_Q4 ? 200.0f : 3200.0f);
    table.context = this;
    table.read_matrix = [](void*, const char*, int64_t, int64_t, rs_matrix*, rs_error*) { return -1; };
    table.release = [](void*, rs_matrix*) {};
    table.read_vector = [](void*, const char* name, int64_t length, float* out, rs_error*) {
      random_model::Random values(random_model::hash_of(name));
      const bool is_bias = std::string(name).ends_with("expert_bias");
      for (int64_t i = 0; i < length; ++i) out[i] = is_bias ? values.uniform(-0.1f, 0.1f) : values.uniform(0.7f, 1.3f);
      return 0;
    };
    table.read_rows = [](void* context, const char* base, int64_t rows, int64_t cols, int64_t first, int64_t count,
                         rs_matrix* out, rs_error*) {
      static_cast<Source*>(context)->lend(base, rows, cols, first, count, *out);
      return 0;
    };
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  rs_weight_source table{};

 private:
  static constexpr size_t kBytes = size_t{16} << 20;

  void lend(const std::string& base, int64_t, int64_t cols, int64_t first, int64_t count, rs_matrix& out) const {
    const uint64_t place = random_model::hash_of(base) + static_cast<uint64_t>(first) * 64;
    if (base.ends_with("mlp.gate")) {
      // A router of small numbers: bf16 whose exponent is that of 1 / 64.
      static const std::vector<uint16_t> router = [] {
        random_model::Random random(6);
        std::vector<uint16_t> values(kBytes / 4);
        for (uint16_t& value : values) value = random_model::bf16_of(random.uniform(-0.04f, 0.04f));
        return values;
      }();
      out = {RS_WEIGHT_BF16, count, cols, 0, router.data() + place % (kBytes / 8), nullptr, nullptr, nullptr};
      return;
    }
    const size_t at = place % (kBytes / 2) / 64 * 64;
    out = {format_, count, cols, 128, codes_.data() + at, scales_.data() + at % 4096, nullptr, nullptr};
  }

  rs_weight_format format_;
  std::vector<uint8_t> codes_;
  std::vector<float> scales_;
};

}  // namespace mini_model
