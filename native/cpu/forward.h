// Owns: the network of specification sections 2-6 over one slab of tokens. Reads like the paper; how fast each step
// runs is the kernels' affair.
// Must never: change a session: it appends rows past the session's position and fills the model's spare state; whoever
// calls decides whether that becomes the session's state.
#pragma once

#include "cpu/model.h"
#include "cpu/parallel.h"

namespace ringside::cpu {

class Forward {
 public:
  Forward(Session& session, Interrupt& interrupt);

  // Passes `rows` <= 512 tokens at the session's position through all layers and computes the logits of the last
  // `wanted` of them into [wanted, vocab_rows]. False: stopped. The pages must be there and the session's own.
  bool slab(const int32_t* tokens, int64_t rows, int64_t wanted, float* logits);

 private:
  void embed(const int32_t* tokens);
  void norm_rows(const float* from, const std::vector<float>& weight, int64_t count);
  void softmax_attention(const Layer& layer);
  void linear_attention(const Layer& layer);
  void add_projection(const Layer& layer);
  void feed_forward(const Layer& layer);
  void head(int64_t wanted, float* logits);

  void norm_and_rotate(float* x, const std::vector<float>& weight, int64_t row);
  void append_keys(const Layer& layer, int64_t row);
  void attend_by_rows(const Layer& layer);
  void attend_by_blocks(const Layer& layer);
  void read_key_block(const Layer& layer, int64_t kv_head, int64_t block, int64_t first_row, int64_t rows,
                      WorkerSpace& space, float* maximum, float* sum, float* mixed);
  void gather_queries(int64_t kv_head, int64_t first_row, int64_t rows, WorkerSpace& space);
  void linear_head(const Layer& layer, int64_t head, int worker);
  void route(const Layer& layer);
  int64_t assign_expert_rows(const Layer& layer);
  void run_experts(const Layer& layer);

  Model& model_;
  Session& session_;
  Parallel parallel_;
  const Shape& shape_;
  const rs_config& config_;
  const Kernels& kernels_;
  Workspace& work_;
  int64_t first_ = 0;  // position of the slab's first token
  int64_t rows_ = 0;
  std::vector<int64_t> expert_counts_;  // [experts]: gathered rows of each expert
};

}  // namespace ringside::cpu
