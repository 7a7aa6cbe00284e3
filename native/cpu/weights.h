// Owns: the weights of one model in the form the kernels stream, and the shape numbers derived from the configuration.
// Must never: change after loading.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/pack.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"
#include "error.h"
#include "model/backend.h"

namespace ringside::cpu {

// rs_config with the arrays it points to, and the products of its numbers that every layer needs.
struct Shape {
  explicit Shape(const rs_config& given);
  Shape(const Shape&) = delete;
  Shape& operator=(const Shape&) = delete;

  rs_config config;
  std::vector<float> slopes;    // [layers, heads]
  std::vector<float> inv_freq;  // [rotary_dim / 2]
  int64_t attention_width;      // heads * head_dim
  int64_t kv_width;             // kv_heads * head_dim, softmax layers
  int64_t linear_layers;
  int64_t softmax_layers;
  int64_t largest_mlp_width;  // of the MLPs that every token passes: dense or shared

  bool is_softmax(int64_t layer) const {
    return (layer + 1) % config.group == 0 || layer >= (config.layers / config.group) * config.group;
  }
  bool is_dense(int64_t layer) const { return layer < config.dense_layers; }
  int64_t qkv_width(int64_t layer) const {
    return is_softmax(layer) ? attention_width + 2 * kv_width : 3 * attention_width;
  }
};

struct Mlp {
  PackedMatrix gate;  // [width, hidden]
  PackedMatrix up;    // [width, hidden]
  PackedMatrix down;  // [hidden, width]
};

struct Layer {
  bool is_softmax = false;
  int64_t kind_index = 0;                   // among the layers of its kind
  std::vector<float> input_norm;            // [hidden]
  std::vector<float> post_attention_norm;   // [hidden]
  std::vector<float> query_norm, key_norm;  // [head_dim]
  PackedMatrix qkv;                         // [qkv_width, hidden]
  PackedMatrix dense;                       // [hidden, attention_width]
  // Linear layers.
  PackedMatrix output_gate;        // [attention_width, hidden]
  std::vector<float> output_norm;  // [attention_width]
  std::vector<float> decay;        // [heads, 65]: exp(-s n)
  // The MLP that every token passes: the dense one, or the shared expert; without rows where there is none.
  Mlp always;
  // Mixture-of-experts layers.
  PackedMatrix router;             // [experts, hidden]
  std::vector<float> expert_bias;  // [experts]
  std::vector<Mlp> experts;
};

// Row-major as stored, for lookups of single rows.
struct Embedding {
  rs_matrix stored{};

  void row(int64_t index, float* out) const { row_to_float(stored, index, out); }
};

struct Weights {
  Embedding embedding;
  std::vector<Layer> layers;
  std::vector<float> final_norm;  // [hidden]
  PackedMatrix lm_head;           // [vocab_rows, hidden]
  Arena arena;                    // holds every matrix
};

// Pulls the weights, matrix by matrix and large ones in slices; each is packed and given back by the thread of the pool
// that asked for it. `options.progress` is called on this thread alone.
Status load_weights(const Shape& shape, const rs_weight_source& source, const rs_load_options& options,
                    ThreadPool& pool, Weights& out);

// Bytes that load_weights would hold if every matrix but the routers came in `format`.
int64_t planned_weight_bytes(const Shape& shape, rs_weight_format format, int64_t group_columns);

}  // namespace ringside::cpu
