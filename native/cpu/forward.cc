// Owns: the layer stack, norms, projections and the output head. Attention and experts have files of their own.
#include "cpu/forward.h"

#include <array>

#include "cpu/kernels/rope.h"

namespace ringside::cpu {

Forward::Forward(Model& model, Interrupt& interrupt)
    : model_(model),
      parallel_(model, interrupt),
      shape_(model.shape),
      config_(model.shape.config),
      kernels_(*model.kernels),
      attention_(*model.kernels->attention()),
      work_(model.workspace),
      expert_counts_(static_cast<size_t>(model.shape.config.experts)) {}

bool Forward::slab(std::span<const Segment> segments) {
  segments_ = segments;
  rows_ = segments.back().first_row + segments.back().rows;
  embed();
  show(TapPoint::kEmbedding, model_.weights.layers.front());
  for (const Layer& layer : model_.weights.layers) {
    norm_rows(layer.input_norm, 0, rows_);
    project_attention(layer);
    if (layer.is_softmax) {
      softmax_attention(layer);
    } else {
      linear_attention(layer);
      gate_mixed(layer);
    }
    add_projection(layer);
    show(TapPoint::kAttention, layer);
    norm_rows(layer.post_attention_norm, 0, rows_);
    feed_forward(layer);
    if (parallel_.stopped()) return false;
    show(TapPoint::kMlp, layer);
  }
  head();
  return !parallel_.stopped();
}

void Forward::show(TapPoint point, const Layer& layer) {
  if (model_.tap == nullptr || model_.tap->residual == nullptr) return;
  const auto index = static_cast<int32_t>(&layer - model_.weights.layers.data());
  model_.tap->residual(model_.tap->context, index, point, work_.residual, rows_, config_.hidden);
}

// residual = embedding rows; and the angles of the rows' positions, the same in every layer.
void Forward::embed() {
  const int64_t half = config_.rotary_dim / 2;
  for (const Segment& segment : segments_) {
    parallel_.rows(segment.rows, [&](int64_t r, int) {
      const int64_t row = segment.first_row + r;
      model_.weights.embedding.row(segment.tokens[r], work_.residual + row * config_.hidden);
      rope_angles(segment.first_position + r, config_.inv_freq, half, work_.cosines + row * half,
                  work_.sines + row * half);
    });
  }
}

// normed = rmsnorm(residual) for some rows
void Forward::norm_rows(const std::vector<float>& weight, int64_t first_row, int64_t rows) {
  const int64_t hidden = config_.hidden;
  parallel_.rows(rows, [&](int64_t r, int) {
    const int64_t at = (first_row + r) * hidden;
    kernels_.rms_norm(work_.residual + at, weight.data(), config_.rms_eps, hidden, work_.normed + at);
  });
}

// qkv, and in linear layers output_gate, = normed · Wᵀ
void Forward::project_attention(const Layer& layer) {
  const std::array products = {
      Product{&layer.qkv, work_.normed, config_.hidden, rows_, work_.qkv, layer.qkv.rows, &work_.normed_codes},
      Product{&layer.output_gate, work_.normed, config_.hidden, rows_, work_.output_gate, shape_.attention_width,
              &work_.normed_codes},
  };
  const std::span wanted = std::span(products).first(layer.is_softmax ? 1 : 2);
  parallel_.quantize(wanted);
  parallel_.products(wanted);
}

// mixed = grouped rmsnorm(mixed) · sigmoid(output_gate)
void Forward::gate_mixed(const Layer& layer) {
  // norm_groups is the NUMBER of groups; each has its own mean square.
  const int64_t width = shape_.attention_width;
  const int64_t group_width = width / config_.norm_groups;
  parallel_.rows(rows_, [&](int64_t row, int) {
    float* mixed = work_.mixed + row * width;
    for (int64_t c = 0; c < width; c += group_width) {
      kernels_.rms_norm(mixed + c, layer.output_norm.data() + c, config_.rms_eps, group_width, mixed + c);
    }
    kernels_.sigmoid_gate(mixed, work_.output_gate + row * width, width);
  });
}

// residual += mixed · W_denseᵀ
void Forward::add_projection(const Layer& layer) {
  const int64_t hidden = config_.hidden;
  const std::array products = {
      Product{&layer.dense, work_.mixed, shape_.attention_width, rows_, work_.projected, hidden, &work_.mixed_codes}};
  parallel_.quantize(products);
  parallel_.products(products, [&](size_t, const ProductPart& part, int) {
    for (int64_t row = part.first_row; row < part.first_row + part.rows; ++row) {
      float* residual = work_.residual + row * hidden + part.first_column;
      const float* add = work_.projected + row * hidden + part.first_column;
      for (int64_t c = 0; c < part.columns; ++c) residual[c] += add[c];
    }
  });
}

// logits = rmsnorm(residual) · W_headᵀ for the wanted rows
void Forward::head() {
  std::vector<Product> products;
  for (const Segment& segment : segments_) {
    if (segment.wanted == 0) continue;
    const int64_t first = segment.first_row + segment.rows - segment.wanted;
    norm_rows(model_.weights.final_norm, first, segment.wanted);
    products.push_back({&model_.weights.lm_head, work_.normed + first * config_.hidden, config_.hidden, segment.wanted,
                        segment.logits, config_.vocab_rows, &work_.normed_codes, first});
  }
  parallel_.quantize(products);
  parallel_.products(products);
}

}  // namespace ringside::cpu
