// Owns: dense MLPs and mixtures of experts (specification section 5): residual += MLP(normed).
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/forward.h"
#include "cpu/kernels/router.h"

namespace ringside::cpu {

void Forward::feed_forward(const Layer& layer) {
  if (!layer.experts.empty()) {
    route(layer);
    if (parallel_.stopped()) return;  // the choices of a stopped router are not to be followed
  }
  run_experts(layer);
  const int64_t hidden = config_.hidden;
  const int64_t slots = layer.experts.empty() ? 0 : config_.experts_per_token;
  const bool has_always = layer.always.gate.rows > 0;
  parallel_.rows(rows_, [&](int64_t row, int) {
    float* sum = work_.normed + row * hidden;  // its inputs are no longer needed
    std::memset(sum, 0, static_cast<size_t>(hidden) * sizeof(float));
    for (int64_t slot = 0; slot < slots; ++slot) {
      const float weight = work_.expert_weights[row * slots + slot];
      const float* out = work_.gathered + work_.expert_row[row * slots + slot] * hidden;
      for (int64_t c = 0; c < hidden; ++c) sum[c] += weight * out[c];
    }
    if (has_always) {
      const float* out = work_.projected + row * hidden;
      for (int64_t c = 0; c < hidden; ++c) sum[c] += out[c];
    }
    float* residual = work_.residual + row * hidden;
    for (int64_t c = 0; c < hidden; ++c) residual[c] += sum[c];
  });
}

// chosen, expert_weights: [rows, experts_per_token]
void Forward::route(const Layer& layer) {
  const Product product{&layer.router, work_.normed, config_.hidden, rows_, work_.router_logits, config_.experts};
  parallel_.products(std::span(&product, 1));
  const RouterShape shape{config_.experts, config_.experts_per_token, config_.expert_groups, config_.groups_per_token,
                          config_.routed_scale};
  parallel_.rows(rows_, [&](int64_t row, int worker) {
    choose_experts(shape, work_.router_logits + row * config_.experts, layer.expert_bias.data(),
                   parallel_.space(worker).router, work_.chosen + row * config_.experts_per_token,
                   work_.expert_weights + row * config_.experts_per_token);
  });
  if (model_.tap == nullptr || model_.tap->routed == nullptr || parallel_.stopped()) return;
  const auto index = static_cast<int32_t>(&layer - model_.weights.layers.data());
  model_.tap->routed(model_.tap->context, index, work_.chosen, rows_, config_.experts_per_token);
}

// Sorts the (token, slot) pairs by expert, tokens ascending: expert_row, gathered_token, expert_counts_.
int64_t Forward::assign_expert_rows(const Layer& layer) {
  const int64_t slots = layer.experts.empty() ? 0 : rows_ * config_.experts_per_token;
  std::fill(expert_counts_.begin(), expert_counts_.end(), 0);
  for (int64_t i = 0; i < slots; ++i) ++expert_counts_[static_cast<size_t>(work_.chosen[i])];
  int64_t start = 0;
  for (int64_t& count : expert_counts_) {
    const int64_t next = start + count;
    count = start;
    start = next;
  }
  for (int64_t i = 0; i < slots; ++i) {
    const int64_t row = expert_counts_[static_cast<size_t>(work_.chosen[i])]++;
    work_.expert_row[i] = static_cast<int32_t>(row);
    work_.gathered_token[row] = static_cast<int32_t>(i / config_.experts_per_token);
  }
  for (size_t e = expert_counts_.size(); e-- > 1;) expert_counts_[e] -= expert_counts_[e - 1];  // ends to counts
  return slots;
}

// gathered[expert_row] = expert(normed of its token); projected = the MLP that every token passes.
void Forward::run_experts(const Layer& layer) {
  const int64_t hidden = config_.hidden;
  const int64_t gathered_rows = assign_expert_rows(layer);
  parallel_.rows(gathered_rows, [&](int64_t row, int) {
    std::copy_n(work_.normed + work_.gathered_token[row] * hidden, hidden, work_.gathered + row * hidden);
  });

  std::vector<Product> gates;
  std::vector<Product> ups;  // each computed tile by tile together with its gate
  std::vector<Product> downs;
  const auto add = [&](const Mlp& mlp, const Product& in, float* gate, float* up, float* out,
                       const QuantizedInput* gate_codes) {
    const int64_t width = mlp.gate.rows;
    gates.push_back({&mlp.gate, in.x, hidden, in.rows, gate, width, in.codes, in.codes_row});
    ups.push_back({&mlp.up, in.x, hidden, in.rows, up, width, in.codes, in.codes_row});
    downs.push_back({&mlp.down, gate, width, in.rows, out, hidden, gate_codes, in.codes_row});
  };
  int64_t row = 0;
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    const int64_t count = expert_counts_[e];
    if (count == 0) continue;
    const int64_t offset = row * config_.expert_width;
    // The inputs are read before the outputs overwrite them: the two steps are separate regions.
    float* inputs = work_.gathered + row * hidden;
    add(layer.experts[e], {nullptr, inputs, hidden, count, nullptr, 0, &work_.gathered_codes, row},
        work_.expert_gate + offset, work_.expert_up + offset, inputs, &work_.expert_gate_codes);
    row += count;
  }
  if (layer.always.gate.rows > 0) {
    add(layer.always, {nullptr, work_.normed, hidden, rows_, nullptr, 0, &work_.normed_codes, 0}, work_.always_gate,
        work_.always_up, work_.projected, &work_.always_gate_codes);
  }

  parallel_.quantize(gates);
  parallel_.quantize(ups);
  parallel_.products(gates, [&](size_t index, const ProductPart& part, int worker) {
    const Product& up = ups[index];
    parallel_.compute(up, part, worker);
    for (int64_t r = part.first_row; r < part.first_row + part.rows; ++r) {
      const int64_t at = r * up.y_stride + part.first_column;
      kernels_.silu_multiply(gates[index].y + at, up.y + at, part.columns);
    }
  });
  parallel_.quantize(downs);
  parallel_.products(downs);
}

}  // namespace ringside::cpu
