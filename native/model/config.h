// Owns: the hyperparameters of one Ring-linear-2.0 checkpoint (specification sections 1-4).
// Every field is range-checked when parsed; after that it is trusted everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../error.h"

namespace ringside {

// Decay slope form, specification section 3.4.
enum class SlopeForm : int32_t { kA = 0, kB = 1, kC = 2 };

struct Config {
  int32_t vocab_rows;  // rows of the embedding and of lm_head (padded)
  int32_t hidden;      // hidden_size
  int32_t layers;      // num_hidden_layers
  int32_t group;       // layer_group_size
  int32_t heads;       // num_attention_heads
  int32_t kv_heads;    // num_key_value_heads, softmax layers only
  int32_t head_dim;
  int32_t rotary_dim;         // channels 0..rotary_dim-1 are rotated; even
  int32_t dense_width;        // intermediate_size
  int32_t expert_width;       // moe_intermediate_size
  int32_t shared_width;       // moe_shared_expert_intermediate_size × num_shared_experts; 0: none
  int32_t experts;            // num_experts
  int32_t experts_per_token;  // num_experts_per_tok
  int32_t expert_groups;      // n_group
  int32_t groups_per_token;   // topk_group
  int32_t dense_layers;       // first_k_dense_replace
  int32_t norm_groups;        // group_norm_size: the NUMBER of groups of g_norm
  int32_t context_tokens;     // max_position_embeddings
  float rms_eps;
  float routed_scale;  // routed_scaling_factor
  double rope_theta;
  bool linear_silu;
  bool expert_bias;                      // moe_router_enable_expert_bias
  SlopeForm slope_form = SlopeForm::kA;  // not in config.json: chosen when loading
  std::vector<int32_t> stop_tokens;      // union of config.json and generation_config.json

  // True where layer i is softmax attention (specification section 2).
  bool is_softmax(int32_t layer) const { return (layer + 1) % group == 0 || layer >= (layers / group) * group; }
  bool is_dense(int32_t layer) const { return layer < dense_layers; }
  int32_t linear_layers() const;
  int32_t softmax_layers() const;
  // Decay slope s of one head in one layer, fp32 (specification section 3.4).
  float slope(int32_t layer, int32_t head) const;
  // Rotation frequency j of 0..rotary_dim/2-1, rounded to fp32 (specification section 3.3).
  float inv_freq(int32_t j) const;
};

// Parses the text of config.json. `path` only names the file in errors.
Result<Config> parse_config(const std::string& text, const std::string& path);

}  // namespace ringside
