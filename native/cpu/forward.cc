// Owns: the layer stack, norms, projections and the output head. Attention and experts have files of their own.
#include "cpu/forward.h"

#include <array>

#include "cpu/kernels/norm.h"
#include "cpu/kernels/rope.h"

namespace ringside::cpu {

Forward::Forward(Session& session, Interrupt& interrupt)
    : model_(*session.model),
      session_(session),
      parallel_(*session.model, interrupt),
      shape_(session.model->shape),
      config_(session.model->shape.config),
      kernels_(*session.model->kernels),
      work_(session.model->workspace),
      expert_counts_(static_cast<size_t>(session.model->shape.config.experts)) {}

bool Forward::slab(const int32_t* tokens, int64_t rows, int64_t wanted, float* logits) {
  first_ = session_.position;
  rows_ = rows;
  embed(tokens);
  for (const Layer& layer : model_.weights.layers) {
    norm_rows(work_.residual, layer.input_norm, rows_);
    if (layer.is_softmax) {
      softmax_attention(layer);
    } else {
      linear_attention(layer);
    }
    add_projection(layer);
    norm_rows(work_.residual, layer.post_attention_norm, rows_);
    feed_forward(layer);
    if (parallel_.stopped()) return false;
  }
  if (wanted > 0) head(wanted, logits);
  return !parallel_.stopped();
}

// residual = embedding rows; and the angles of this slab's positions, the same in every layer.
void Forward::embed(const int32_t* tokens) {
  const int64_t half = config_.rotary_dim / 2;
  parallel_.rows(rows_, [&](int64_t row, int) {
    model_.weights.embedding.row(tokens[row], work_.residual + row * config_.hidden);
    rope_angles(first_ + row, config_.inv_freq, half, work_.cosines + row * half, work_.sines + row * half);
  });
}

// normed = rmsnorm(from)
void Forward::norm_rows(const float* from, const std::vector<float>& weight, int64_t count) {
  const int64_t hidden = config_.hidden;
  parallel_.rows(count, [&](int64_t row, int) {
    rms_norm(from + row * hidden, weight.data(), config_.rms_eps, hidden, work_.normed + row * hidden);
  });
}

// residual += mixed · W_denseᵀ
void Forward::add_projection(const Layer& layer) {
  const int64_t hidden = config_.hidden;
  const std::array products = {
      Product{&layer.dense, work_.mixed, shape_.attention_width, rows_, work_.projected, hidden}};
  parallel_.products(products, [&](size_t, const ProductPart& part, int) {
    for (int64_t row = part.first_row; row < part.first_row + part.rows; ++row) {
      float* residual = work_.residual + row * hidden + part.first_column;
      const float* add = work_.projected + row * hidden + part.first_column;
      for (int64_t c = 0; c < part.columns; ++c) residual[c] += add[c];
    }
  });
}

// logits = rmsnorm(residual) · W_headᵀ for the last `wanted` rows
void Forward::head(int64_t wanted, float* logits) {
  const float* last_rows = work_.residual + (rows_ - wanted) * config_.hidden;
  norm_rows(last_rows, model_.weights.final_norm, wanted);
  const std::array products = {
      Product{&model_.weights.lm_head, work_.normed, config_.hidden, wanted, logits, config_.vocab_rows}};
  parallel_.products(products);
}

// One head of one row: RMS norm over its channels, then rotation of the first rotary_dim of them.
void Forward::norm_and_rotate(float* x, const std::vector<float>& weight, int64_t row) {
  const int64_t half = config_.rotary_dim / 2;
  rms_norm(x, weight.data(), config_.rms_eps, config_.head_dim, x);
  rotate(x, work_.cosines + row * half, work_.sines + row * half, half);
}

}  // namespace ringside::cpu
