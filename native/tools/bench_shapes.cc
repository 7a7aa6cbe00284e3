#include "tools/bench_shapes.h"

namespace ringside::tools {
namespace {

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

}  // namespace

std::optional<Config> shape_by_name(const std::string& name) {
  if (name == "nano") return nano_shape(9, 3);
  if (name == "nano8") return nano_shape(8, 4);
  if (name == "mini") return large_shape(2048, 20, 5, 16, 5120, 512);
  if (name == "flash") return large_shape(4096, 32, 8, 32, 9216, 1024);
  return std::nullopt;
}

}  // namespace ringside::tools
