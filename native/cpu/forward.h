// Owns: the network of specification sections 2-6 over one slab of tokens. Reads like the paper; how fast each step
// runs is the kernels' affair.
// Must never: change a session: it appends rows past the session's position and fills spare states; whoever calls
// decides whether those become the session's state.
#pragma once

#include <span>

#include "cpu/model.h"
#include "cpu/parallel.h"

namespace ringside::cpu {

// Consecutive rows of a slab that continue one session.
struct Segment {
  Session* session;
  const int32_t* tokens;   // [rows]
  int64_t first_position;  // of its first row: the session's position
  int64_t first_row;       // of the slab: segments follow each other without gaps
  int64_t rows;
  LinearState* spare;  // receives the states of chunks that end in this segment; null where none does
  int64_t wanted;      // logits of the last so many rows, to [wanted, vocab_rows]
  float* logits;
};

// An MLP and the rows that pass it: rows [first_row, first_row + rows) of its inner activations.
struct MlpRows {
  const Mlp* mlp;
  int64_t first_row;
  int64_t rows;
};

class Forward {
 public:
  Forward(Model& model, Interrupt& interrupt);

  // Passes the tokens of all segments, at most 4,096, through all layers in one pass over the weights. False: stopped.
  // The pages must be there and the sessions' own. A session has at most one segment.
  bool slab(std::span<const Segment> segments);

 private:
  void embed();
  void norm_row(const std::vector<float>& weight, const InputForms& forms, int64_t from, int64_t to);
  void norm_row(const std::vector<float>& weight, const InputForms& forms, int64_t from, int64_t to,
                const Activations& rows);
  void project_attention(const Layer& layer, const InputForms& forms);
  void softmax_attention(const Layer& layer);
  void linear_attention(const Layer& layer);
  void finish_mixed(const Layer& layer, const InputForms& forms);
  void add_projection(const Layer& layer);
  void feed_forward(const Layer& layer, const LayerForms& forms);
  void head();
  void show(TapPoint point, const Layer& layer);

  HeadRotation rotation_of(int64_t row, float* x, int64_t heads, const std::vector<float>& weight, float scale) const;
  void linear_head(const Layer& layer, const Segment& segment, int64_t head, int worker);
  void append_keys(const Layer& layer);
  void append_keys(const Layer& layer, const Segment& segment, int64_t first_row, int64_t rows);
  void attend_by_rows(const Layer& layer);
  void attend_rows(const Layer& layer, const Segment& segment, int64_t kv_head, int64_t first_row, int64_t rows,
                   int worker);
  void attend_by_blocks(const Layer& layer);
  void attend_by_blocks(const Layer& layer, std::span<const Segment> segments);
  void read_key_block(const Layer& layer, const Segment& segment, int64_t kv_head, int64_t block, int64_t first_row,
                      int64_t rows, WorkerSpace& space, float* maximum, float* sum, float* mixed);
  void gather_queries(const Segment& segment, int64_t kv_head, int64_t first_row, int64_t rows, WorkerSpace& space);
  void route(const Layer& layer, const InputForms& forms);
  void choose_experts_of(const Layer& layer, int64_t row, int worker);
  void gather(const Layer& layer);
  void gate_and_up(const Layer& layer, const LayerForms& forms);
  const Activations& gather_inputs(const MlpRows& of, const InputForms& forms, int worker);
  void inner_columns(const MlpRows& of, const InputForms& forms, const Activations& to, const Activations& x,
                     int64_t x_row, int64_t part, int worker, const uint8_t* next);
  void down(const Layer& layer);
  void down_tiles(const Layer& layer, int64_t first_tile, int64_t tiles, int worker);

  Activations normed() const { return {work_.normed, config_.hidden, work_.input_codes}; }
  Activations head_inputs() const { return {work_.normed, config_.hidden, work_.head_codes}; }
  Activations mixed() const { return {work_.mixed, shape_.attention_width, work_.input_codes}; }

  Model& model_;
  Parallel parallel_;
  const Shape& shape_;
  const rs_config& config_;
  const Kernels& kernels_;
  const AttentionKernels& attention_;
  Workspace& work_;
  std::span<const Segment> segments_;
  int64_t rows_ = 0;                  // of all segments
  std::vector<MlpRows> experts_;      // those that the rows of the running layer chose, ascending
  std::vector<int64_t> expert_ends_;  // [experts]
};

}  // namespace ringside::cpu
