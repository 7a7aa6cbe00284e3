// Owns: the slow truth. The forward pass of specification sections 2-6 in float64, scalar, one token at a time, the
// linear layers in recurrent form. Must never be optimised: every other backend is measured against it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../model/backend.h"
#include "../model/tap.h"

namespace ringside::reference {

// One matrix [rows, cols], y = x · Wᵀ. Every stored format is exact in fp32.
struct Weight {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;
};

struct Mlp {
  Weight gate, up, down;
};

struct Layer {
  bool softmax = false;
  std::vector<float> input_norm, post_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;         // [head_dim]
  Weight qkv, dense;
  Weight g_proj;                   // linear layers only
  std::vector<float> g_norm;       // linear layers only, [heads * head_dim]
  Mlp mlp;                         // the dense MLP or the shared expert; no rows: there is none
  Weight router;                   // [experts, hidden]; no rows: a dense layer
  std::vector<float> expert_bias;  // [experts] or empty
  std::vector<Mlp> experts;
};

struct Weights {
  rs_config config{};           // its pointers are not used
  std::vector<double> slopes;   // [layers, heads]
  std::vector<float> inv_freq;  // [rotary_dim / 2]
  Weight embeddings, lm_head;   // [vocab_rows, hidden]
  std::vector<float> norm;      // [hidden]
  std::vector<Layer> layers;
  const Tap* tap = nullptr;  // a tool that watches
};

// What one linear layer remembers. The open chunk's rows make every position of it reachable again: S at the last
// boundary and a replay of the rows give the bits that the first reading gave.
struct LinearMemory {
  std::vector<double> S;           // [heads, head_dim, head_dim], after the last token
  std::vector<double> S_boundary;  // the same at the last chunk boundary
  std::vector<double> k, v;        // [tokens of the open chunk, heads * head_dim], k after norm and RoPE
};

// Keys and values of RS_PAGE_TOKENS positions of one softmax layer, [position, kv_heads * head_dim].
struct Page {
  std::vector<double> k, v;
};

struct Memory {
  int64_t position = 0;
  std::vector<LinearMemory> linear;                         // in layer order
  std::vector<std::vector<std::shared_ptr<Page>>> softmax;  // in layer order; pages are copied before a write if shared
};

bool is_softmax(const rs_config& config, int32_t layer);
int32_t linear_layers(const rs_config& config);
// Specification section 3.4, in float64: the goldens were made so. The fp32 slopes of the table are for the fast
// backends.
double slope(const rs_config& config, int32_t layer, int32_t head);

Memory empty_memory(const rs_config& config);
// Cuts the open chunk's last rows: position / 64 * 64 of the memory <= keep <= its position.
void rewind(const Weights& weights, Memory& memory, int64_t keep);
// What a snapshot holds: the memory at the last chunk boundary, pages shared.
Memory at_boundary(const Memory& memory);
// Frobenius norm of S, [linear layers, heads].
std::vector<double> state_norms(const rs_config& config, const Memory& memory);
int64_t memory_bytes(const Memory& memory);

// out = softmax(scores), in place over any number of scores > 0.
void softmax(std::span<double> scores);
// Specification section 5: experts_per_token ids, best first, and their weights, from the router's logits [experts].
struct Route {
  std::vector<int32_t> experts;
  std::vector<double> weights;
};
Route route(const rs_config& config, std::span<const double> logits, std::span<const float> expert_bias);

// Reads tokens into a memory. A cancelled step leaves the memory as it was before the step.
class Forward {
 public:
  Forward(const Weights& weights, Memory& memory, const rs_poll* poll);
  // Appends one token; `logits` is [vocab_rows] or empty. False: cancelled.
  bool step(int32_t token, std::span<double> logits);

 private:
  void multiply(const Weight& weight, std::span<const double> x, std::span<double> y);
  void attend_linear(const Layer& layer, int32_t index, LinearMemory& memory);
  void attend_softmax(const Layer& layer, std::vector<std::shared_ptr<Page>>& pages);
  void split_qkv(const Layer& layer, int32_t kv_heads);
  void rotate(std::span<double> head) const;
  void add_mlp(const Mlp& mlp, double factor);
  void mix(const Layer& layer);
  void show(int32_t layer, TapPoint point) const;
  void worked(int64_t multiply_adds);

  const Weights& weights_;
  const rs_config& config_;
  Memory& memory_;
  const rs_poll* poll_;
  int64_t since_poll_ = 0;
  bool cancelled_ = false;
  std::vector<double> h_, x_, qkv_, o_, gate_, up_, branch_, router_;
};

}  // namespace ringside::reference
