// Owns: a small random model that a GPU's kernels take, and sources of its weights whose formats differ by name.
#pragma once

#include <algorithm>
#include <functional>
#include <string>

#include "model/backend.h"
#include "random_model.h"

namespace small_model {

// Two linear layers and a softmax one, then a trailing softmax layer; the first MLP dense.
inline random_model::Shape shape() {
  random_model::Shape shape;
  rs_config& config = shape.config;
  config.vocab_rows = 160;
  config.hidden = 256;
  config.layers = 4;
  config.group = 3;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 128;
  config.rotary_dim = 64;
  config.dense_width = 384;
  config.expert_width = 128;
  config.shared_width = 128;
  config.experts = 16;
  config.experts_per_token = 3;
  config.expert_groups = 4;
  config.groups_per_token = 2;
  config.norm_groups = 2;
  config.context_tokens = 8192;
  return shape;
}

// A model whose weights are most of what it needs, with experts in five layers.
inline random_model::Shape expert_shape() {
  random_model::Shape shape = small_model::shape();
  shape.config.layers = 6;
  shape.config.expert_width = shape.config.shared_width = 384;
  shape.config.context_tokens = 2048;
  return shape;
}

// The weights of one source or another, by the matrix's name. Codes that are no numbers become others.
class Source {
 public:
  using Choice = std::function<random_model::Source&(const std::string& base)>;
  explicit Source(Choice choose) : choose_(std::move(choose)) {
    table.context = this;
    table.read_matrix = [](void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                           rs_error* error) {
      rs_weight_source& from = static_cast<Source*>(context)->choose_(base).table;
      const int32_t code = from.read_matrix(from.context, base, rows, cols, out, error);
      if (code == 0 && out->format == RS_WEIGHT_FP8) make_numbers(*out);
      return code;
    };
    table.read_vector = [](void* context, const char* name, int64_t length, float* out, rs_error* error) {
      rs_weight_source& from = static_cast<Source*>(context)->choose_(name).table;
      const int32_t code = from.read_vector(from.context, name, length, out, error);
      const bool is_bias = std::string(name).ends_with("expert_bias");
      if (is_bias)
        std::transform(out, out + length, out, [&](float v) { return v * static_cast<Source*>(context)->bias; });
      return code;
    };
    table.release = random_model::Source(0, RS_WEIGHT_F32).table.release;  // the same for all
  }
  explicit Source(random_model::Source& only)
      : Source([&only](const std::string&) -> random_model::Source& { return only; }) {}
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  rs_weight_source table{};
  float bias = 1.0f;  // a factor of the experts' bias; a large one settles which are chosen, whatever the scores

 private:
  static void make_numbers(rs_matrix& matrix) {
    auto* codes = static_cast<uint8_t*>(const_cast<void*>(matrix.data));
    for (int64_t i = 0; i < matrix.rows * matrix.cols; ++i) {
      if ((codes[i] & 0x7f) == 0x7f) codes[i] ^= 1;
    }
  }
  Choice choose_;
};

}  // namespace small_model
