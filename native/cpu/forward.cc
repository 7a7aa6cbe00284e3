// Owns: the layer stack, norms, projections and the output head. Attention and experts have files of their own.
#include "cpu/forward.h"

#include <algorithm>
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
      expert_ends_(static_cast<size_t>(model.shape.config.experts)) {}

bool Forward::slab(std::span<const Segment> segments) {
  segments_ = segments;
  rows_ = segments.back().first_row + segments.back().rows;
  embed();
  show(TapPoint::kEmbedding, model_.weights.layers.front());
  for (size_t i = 0; i < model_.weights.layers.size(); ++i) {
    const Layer& layer = model_.weights.layers[i];
    const LayerForms& forms = model_.layer_forms[i];
    project_attention(layer, forms.attention);
    if (layer.is_softmax) {
      softmax_attention(layer);
    } else {
      linear_attention(layer);
    }
    finish_mixed(layer, forms.mixed);
    add_projection(layer);
    show(TapPoint::kAttention, layer);
    feed_forward(layer, forms);
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

// Row `to` of normed = rmsnorm(row `from` of residual), in the forms that its readers want.
void Forward::norm_row(const std::vector<float>& weight, const InputForms& forms, int64_t from, int64_t to) {
  norm_row(weight, forms, from, to, normed());
}

void Forward::norm_row(const std::vector<float>& weight, const InputForms& forms, int64_t from, int64_t to,
                       const Activations& rows) {
  const int64_t hidden = config_.hidden;
  float* out = rows.values + to * rows.stride;
  kernels_.rms_norm(work_.residual + from * hidden, weight.data(), config_.rms_eps, hidden, out);
  rows.quantize(kernels_, forms, to, hidden, out, 0, hidden);
}

// qkv, and in linear layers output_gate, = rmsnorm(residual) · Wᵀ
void Forward::project_attention(const Layer& layer, const InputForms& forms) {
  parallel_.rows(rows_, [&](int64_t row, int) { norm_row(layer.input_norm, forms, row, row); });
  const std::array<const PackedMatrix*, 2> matrices = {&layer.qkv, &layer.output_gate};
  parallel_.products(std::span(matrices).first(layer.is_softmax ? 1 : 2), rows_,
                     [&](const ProductPart& part, int worker) {
                       float* out = part.w == &layer.qkv ? work_.qkv : work_.output_gate;
                       parallel_.multiply(part, normed(), out, part.w->rows, worker);
                     });
}

// Linear layers: mixed = grouped rmsnorm(mixed) · sigmoid(output_gate). In both kinds, the forms that W_dense reads.
void Forward::finish_mixed(const Layer& layer, const InputForms& forms) {
  // norm_groups is the NUMBER of groups; each has its own mean square.
  const int64_t width = shape_.attention_width;
  const int64_t group_width = width / config_.norm_groups;
  parallel_.rows(rows_, [&](int64_t row, int) {
    float* x = work_.mixed + row * width;
    if (!layer.is_softmax) {
      for (int64_t c = 0; c < width; c += group_width) {
        kernels_.rms_norm(x + c, layer.output_norm.data() + c, config_.rms_eps, group_width, x + c);
      }
      kernels_.sigmoid_gate(x, work_.output_gate + row * width, width);
    }
    mixed().quantize(kernels_, forms, row, width, x, 0, width);
  });
}

// residual += mixed · W_denseᵀ
void Forward::add_projection(const Layer& layer) {
  const std::array<const PackedMatrix*, 1> matrices = {&layer.dense};
  parallel_.products(matrices, rows_, [&](const ProductPart& part, int worker) {
    float* tile = parallel_.space(worker).tile;
    parallel_.multiply(*part.w, part.tile, mixed(), part.first_row, part.rows, tile, kTileRows, worker, part.next);
    for (int64_t r = 0; r < part.rows; ++r) {
      kernels_.add(tile + r * kTileRows, part.columns,
                   work_.residual + (part.first_row + r) * config_.hidden + part.first_column);
    }
  });
}

// logits = rmsnorm(residual) · W_headᵀ for the wanted rows of all segments, which are moved together for it
void Forward::head() {
  std::vector<float*> logits;  // of each wanted row
  std::vector<int64_t> from;   // its row of the slab
  for (const Segment& segment : segments_) {
    for (int64_t i = 0; i < segment.wanted; ++i) {
      logits.push_back(segment.logits + i * config_.vocab_rows);
      from.push_back(segment.first_row + segment.rows - segment.wanted + i);
    }
  }
  if (logits.empty()) return;
  const auto wanted = static_cast<int64_t>(logits.size());
  const PackedMatrix& w = model_.weights.lm_head;
  const InputForms forms = InputForms::of(w);
  parallel_.rows(wanted, [&](int64_t i, int) {
    norm_row(model_.weights.final_norm, forms, from[static_cast<size_t>(i)], i, head_inputs());
  });
  const std::array<const PackedMatrix*, 1> matrices = {&w};
  parallel_.products(matrices, wanted, [&](const ProductPart& part, int worker) {
    float* tile = parallel_.space(worker).tile;
    parallel_.multiply(w, part.tile, head_inputs(), part.first_row, part.rows, tile, kTileRows, worker, part.next);
    for (int64_t r = 0; r < part.rows; ++r) {
      std::copy_n(tile + r * kTileRows, part.columns,
                  logits[static_cast<size_t>(part.first_row + r)] + part.first_column);
    }
  });
}

}  // namespace ringside::cpu
