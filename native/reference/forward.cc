#include "forward.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ringside::reference {
namespace {

// About 10 ms of scalar work: a cancel is seen well within the 50 ms that the table asks for.
constexpr int64_t kMultiplyAddsPerPoll = 4'000'000;

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }

// x = x / sqrt(mean(x²) + eps) * w
void rms_norm(std::span<double> x, const float* w, double eps) {
  double sum = 0.0;
  for (double value : x) sum += value * value;
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
  for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * scale * static_cast<double>(w[i]);
}

// S = exp(-s) S + kᵀ v for each head; the old state decays before the new outer product is added.
void update_state(const rs_config& config, const double* slopes, const double* k, const double* v,
                  std::vector<double>& S) {
  const int64_t d = config.head_dim;
  for (int32_t head = 0; head < config.heads; ++head) {
    const double decay = std::exp(-slopes[head]);
    for (int64_t a = 0; a < d; ++a) {
      double* row = &S[static_cast<size_t>((head * d + a) * d)];
      for (int64_t b = 0; b < d; ++b) row[b] = decay * row[b] + k[head * d + a] * v[head * d + b];
    }
  }
}

// Index of the largest value that is not taken; the lower index wins a tie. -1: all are taken.
int32_t best_of(std::span<const double> values, const std::vector<bool>& taken) {
  int32_t best = -1;
  for (int32_t i = 0; i < static_cast<int32_t>(values.size()); ++i) {
    if (taken[static_cast<size_t>(i)]) continue;
    if (best < 0 || values[static_cast<size_t>(i)] > values[static_cast<size_t>(best)]) best = i;
  }
  return best;
}

// The two largest values of a group of experts, added.
double group_score(std::span<const double> group) {
  double first = -std::numeric_limits<double>::infinity();
  double second = first;
  for (double value : group) {
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  return group.size() < 2 ? first : first + second;
}

}  // namespace

bool is_softmax(const rs_config& config, int32_t layer) {
  return (layer + 1) % config.group == 0 || layer >= (config.layers / config.group) * config.group;
}

int32_t linear_layers(const rs_config& config) {
  int32_t count = 0;
  for (int32_t layer = 0; layer < config.layers; ++layer) count += is_softmax(config, layer) ? 0 : 1;
  return count;
}

double slope(const rs_config& config, int32_t layer, int32_t head) {
  // A geometric series; heads beyond a power of two take every other member of the series twice as long.
  int32_t power = 1;
  while (2 * power <= config.heads) power *= 2;
  const double exponent = head < power ? -8.0 * (head + 1) / power : -8.0 * (2 * (head - power) + 1) / (2 * power);
  const int32_t step = config.slope_form == 0 ? layer : config.slope_form == 1 ? layer - 1 : std::max(0, layer - 1);
  const double factor = config.layers == 1 ? 1.0 : 1.0 - static_cast<double>(step) / (config.layers - 1);
  return std::exp2(exponent) * (factor + 1e-5);
}

Memory empty_memory(const rs_config& config) {
  Memory memory;
  const auto state = static_cast<size_t>(config.heads) * static_cast<size_t>(config.head_dim * config.head_dim);
  memory.linear.resize(static_cast<size_t>(linear_layers(config)));
  for (LinearMemory& linear : memory.linear) {
    linear.S.assign(state, 0.0);
    linear.S_boundary.assign(state, 0.0);
  }
  memory.softmax.resize(static_cast<size_t>(config.layers) - memory.linear.size());
  return memory;
}

void rewind(const Weights& weights, Memory& memory, int64_t keep) {
  const rs_config& config = weights.config;
  const auto width = static_cast<size_t>(config.heads * config.head_dim);
  const auto rows = static_cast<size_t>(keep % RS_CHUNK_TOKENS);
  size_t index = 0;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    if (is_softmax(config, layer)) continue;
    LinearMemory& linear = memory.linear[index++];
    linear.k.resize(rows * width);
    linear.v.resize(rows * width);
    linear.S = linear.S_boundary;
    for (size_t row = 0; row < rows; ++row) {
      update_state(config, &weights.slopes[static_cast<size_t>(layer * config.heads)], &linear.k[row * width],
                   &linear.v[row * width], linear.S);
    }
  }
  memory.position = keep;
}

Memory at_boundary(const Memory& memory) {
  Memory boundary;
  boundary.position = memory.position / RS_CHUNK_TOKENS * RS_CHUNK_TOKENS;
  for (const LinearMemory& linear : memory.linear) {
    boundary.linear.push_back({linear.S_boundary, linear.S_boundary, {}, {}});
  }
  const auto pages = static_cast<size_t>((boundary.position + RS_PAGE_TOKENS - 1) / RS_PAGE_TOKENS);
  for (const auto& layer : memory.softmax) {
    boundary.softmax.emplace_back(layer.begin(), layer.begin() + static_cast<int64_t>(std::min(pages, layer.size())));
  }
  return boundary;
}

std::vector<double> state_norms(const rs_config& config, const Memory& memory) {
  std::vector<double> norms;
  const auto per_head = static_cast<size_t>(config.head_dim * config.head_dim);
  for (const LinearMemory& linear : memory.linear) {
    for (size_t head = 0; head < static_cast<size_t>(config.heads); ++head) {
      double sum = 0.0;
      for (size_t i = 0; i < per_head; ++i) {
        const double value = linear.S[head * per_head + i];
        sum += value * value;
      }
      norms.push_back(std::sqrt(sum));
    }
  }
  return norms;
}

int64_t memory_bytes(const Memory& memory) {
  size_t values = 0;
  for (const LinearMemory& linear : memory.linear) {
    values += linear.S.size() + linear.S_boundary.size() + linear.k.size() + linear.v.size();
  }
  for (const auto& layer : memory.softmax) {
    for (const auto& page : layer) values += page->k.size() + page->v.size();
  }
  return static_cast<int64_t>(values * sizeof(double));
}

void softmax(std::span<double> scores) {
  double largest = -std::numeric_limits<double>::infinity();
  for (double score : scores) largest = std::max(largest, score);
  double sum = 0.0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (double& score : scores) score /= sum;
}

Route route(const rs_config& config, std::span<const double> logits, std::span<const float> expert_bias) {
  const auto experts = static_cast<size_t>(config.experts);
  const auto groups = static_cast<size_t>(config.expert_groups);
  const size_t group_width = experts / groups;
  std::vector<double> s(experts);
  std::vector<double> c(experts);  // the bias chooses, it does not weigh
  for (size_t e = 0; e < experts; ++e) {
    s[e] = sigmoid(logits[e]);
    c[e] = s[e] + (expert_bias.empty() ? 0.0 : static_cast<double>(expert_bias[e]));
  }

  std::vector<double> scores(groups);
  for (size_t g = 0; g < groups; ++g) scores[g] = group_score(std::span(c).subspan(g * group_width, group_width));
  std::vector<bool> group_kept(groups, false);
  for (int32_t i = 0; i < config.groups_per_token; ++i) {
    group_kept[static_cast<size_t>(best_of(scores, group_kept))] = true;
  }
  for (size_t e = 0; e < experts; ++e) {
    if (!group_kept[e / group_width]) c[e] = -std::numeric_limits<double>::infinity();
  }

  Route chosen;
  std::vector<bool> taken(experts, false);
  double sum = 1e-20;
  for (int32_t slot = 0; slot < config.experts_per_token; ++slot) {
    const int32_t e = best_of(c, taken);
    taken[static_cast<size_t>(e)] = true;
    chosen.experts.push_back(e);
    sum += s[static_cast<size_t>(e)];
  }
  for (int32_t e : chosen.experts) {
    chosen.weights.push_back(s[static_cast<size_t>(e)] / sum * static_cast<double>(config.routed_scale));
  }
  return chosen;
}

Forward::Forward(const Weights& weights, Memory& memory, const rs_poll* poll)
    : weights_(weights), config_(weights.config), memory_(memory), poll_(poll) {}

bool Forward::step(int32_t token, std::span<double> logits) {
  const auto hidden = static_cast<size_t>(config_.hidden);
  const float* embedding = &weights_.embeddings.values[static_cast<size_t>(token) * hidden];
  h_.assign(embedding, embedding + hidden);
  show(0, TapPoint::kEmbedding);
  size_t linear = 0;
  size_t softmax_layer = 0;
  for (int32_t i = 0; i < config_.layers && !cancelled_; ++i) {
    const Layer& layer = weights_.layers[static_cast<size_t>(i)];
    x_ = h_;
    rms_norm(x_, layer.input_norm.data(), config_.rms_eps);
    if (layer.softmax) {
      attend_softmax(layer, memory_.softmax[softmax_layer++]);
    } else {
      attend_linear(layer, i, memory_.linear[linear++]);
    }
    for (size_t c = 0; c < hidden; ++c) h_[c] += branch_[c];
    show(i, TapPoint::kAttention);

    x_ = h_;
    rms_norm(x_, layer.post_norm.data(), config_.rms_eps);
    mix(layer);
    for (size_t c = 0; c < hidden; ++c) h_[c] += branch_[c];
    show(i, TapPoint::kMlp);
  }
  if (!logits.empty()) {
    x_ = h_;
    rms_norm(x_, weights_.norm.data(), config_.rms_eps);
    multiply(weights_.lm_head, x_, logits);
  }
  if (cancelled_) {
    rewind(weights_, memory_, memory_.position);
    return false;
  }
  if (++memory_.position % RS_CHUNK_TOKENS == 0) {
    for (LinearMemory& memory : memory_.linear) {
      memory.S_boundary = memory.S;
      memory.k.clear();
      memory.v.clear();
    }
  }
  return true;
}

void Forward::show(int32_t layer, TapPoint point) const {
  if (weights_.tap == nullptr || weights_.tap->residual == nullptr) return;
  const std::vector<float> row(h_.begin(), h_.end());
  weights_.tap->residual(weights_.tap->context, layer, point, row.data(), 1, config_.hidden);
}

// Specification section 3.2. Leaves the layer's output in branch_.
void Forward::attend_linear(const Layer& layer, int32_t index, LinearMemory& memory) {
  const auto d = static_cast<size_t>(config_.head_dim);
  const auto heads = static_cast<size_t>(config_.heads);
  const size_t width = heads * d;
  split_qkv(layer, config_.heads);
  const double* q = qkv_.data();
  const double* k = q + width;
  const double* v = k + width;
  memory.k.insert(memory.k.end(), k, k + width);
  memory.v.insert(memory.v.end(), v, v + width);
  update_state(config_, &weights_.slopes[static_cast<size_t>(index) * heads], k, v, memory.S);
  worked(static_cast<int64_t>(2 * width * d));

  // The output reads the updated state: the current token contributes undecayed.
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  o_.assign(width, 0.0);
  for (size_t head = 0; head < heads; ++head) {
    for (size_t a = 0; a < d; ++a) {
      const double* row = &memory.S[(head * d + a) * d];
      for (size_t b = 0; b < d; ++b) o_[head * d + b] += q[head * d + a] * scale * row[b];
    }
  }

  // Norm first, gate second; each group of channels has its own mean square.
  const size_t group_width = width / static_cast<size_t>(config_.norm_groups);
  for (size_t start = 0; start < width; start += group_width) {
    rms_norm(std::span(o_).subspan(start, group_width), &layer.g_norm[start], config_.rms_eps);
  }
  gate_.resize(width);
  multiply(layer.g_proj, x_, gate_);
  for (size_t c = 0; c < width; ++c) o_[c] *= sigmoid(gate_[c]);
  branch_.resize(static_cast<size_t>(config_.hidden));
  multiply(layer.dense, o_, branch_);
}

// Specification section 4. Leaves the layer's output in branch_.
void Forward::attend_softmax(const Layer& layer, std::vector<std::shared_ptr<Page>>& pages) {
  const auto d = static_cast<size_t>(config_.head_dim);
  const auto heads = static_cast<size_t>(config_.heads);
  const auto kv_heads = static_cast<size_t>(config_.kv_heads);
  const size_t kv_width = kv_heads * d;
  split_qkv(layer, config_.kv_heads);
  const double* q = qkv_.data();
  const double* k = q + heads * d;
  const double* v = k + kv_width;

  const auto position = static_cast<size_t>(memory_.position);
  if (position / RS_PAGE_TOKENS == pages.size()) {
    pages.push_back(std::make_shared<Page>(
        Page{std::vector<double>(RS_PAGE_TOKENS * kv_width), std::vector<double>(RS_PAGE_TOKENS * kv_width)}));
  }
  std::shared_ptr<Page>& page = pages[position / RS_PAGE_TOKENS];
  if (page.use_count() > 1) page = std::make_shared<Page>(*page);
  const size_t row = position % RS_PAGE_TOKENS * kv_width;
  std::copy(k, k + kv_width, page->k.begin() + static_cast<int64_t>(row));
  std::copy(v, v + kv_width, page->v.begin() + static_cast<int64_t>(row));

  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  o_.assign(heads * d, 0.0);
  std::vector<double> scores(position + 1);
  for (size_t head = 0; head < heads && !cancelled_; ++head) {
    const size_t channel = head / (heads / kv_heads) * d;
    for (size_t t = 0; t <= position; ++t) {
      const double* key = &pages[t / RS_PAGE_TOKENS]->k[t % RS_PAGE_TOKENS * kv_width + channel];
      scores[t] = 0.0;
      for (size_t a = 0; a < d; ++a) scores[t] += q[head * d + a] * scale * key[a];
    }
    softmax(scores);
    for (size_t t = 0; t <= position; ++t) {
      const double* value = &pages[t / RS_PAGE_TOKENS]->v[t % RS_PAGE_TOKENS * kv_width + channel];
      for (size_t b = 0; b < d; ++b) o_[head * d + b] += scores[t] * value[b];
    }
    worked(static_cast<int64_t>(2 * (position + 1) * d));
  }
  branch_.resize(static_cast<size_t>(config_.hidden));
  multiply(layer.dense, o_, branch_);
}

// qkv_ = [Q heads | K heads | V heads] of x_, q and k normed and rotated.
void Forward::split_qkv(const Layer& layer, int32_t kv_heads) {
  const auto d = static_cast<size_t>(config_.head_dim);
  qkv_.resize(static_cast<size_t>(config_.heads + 2 * kv_heads) * d);
  multiply(layer.qkv, x_, qkv_);
  if (config_.linear_silu != 0 && !layer.softmax) {
    for (double& value : qkv_) value = silu(value);
  }
  for (int32_t head = 0; head < config_.heads + kv_heads; ++head) {
    const std::span<double> channels = std::span(qkv_).subspan(static_cast<size_t>(head) * d, d);
    rms_norm(channels, (head < config_.heads ? layer.q_norm : layer.k_norm).data(), config_.rms_eps);
    rotate(channels);
  }
}

// Specification section 3.3: rotate-half pairs, the angle a product of two fp32 numbers as in every other engine.
void Forward::rotate(std::span<double> head) const {
  const auto half = static_cast<size_t>(config_.rotary_dim / 2);
  for (size_t j = 0; j < half; ++j) {
    const float angle = static_cast<float>(memory_.position) * weights_.inv_freq[j];
    const double cosine = std::cos(static_cast<double>(angle));
    const double sine = std::sin(static_cast<double>(angle));
    const double low = head[j];
    const double high = head[j + half];
    head[j] = low * cosine - high * sine;
    head[j + half] = high * cosine + low * sine;
  }
}

// Specification section 5. Leaves the MLP's output of x_ in branch_.
void Forward::mix(const Layer& layer) {
  branch_.assign(static_cast<size_t>(config_.hidden), 0.0);
  if (layer.router.rows > 0) {
    router_.resize(static_cast<size_t>(config_.experts));
    multiply(layer.router, x_, router_);
    const Route chosen = route(config_, router_, layer.expert_bias);
    if (weights_.tap != nullptr && weights_.tap->routed != nullptr) {
      const auto index = static_cast<int32_t>(&layer - weights_.layers.data());
      weights_.tap->routed(weights_.tap->context, index, chosen.experts.data(), 1, config_.experts_per_token);
    }
    for (size_t slot = 0; slot < chosen.experts.size(); ++slot) {
      add_mlp(layer.experts[static_cast<size_t>(chosen.experts[slot])], chosen.weights[slot]);
    }
  }
  if (layer.mlp.gate.rows > 0) add_mlp(layer.mlp, 1.0);
}

// branch_ += factor * down(silu(gate(x_)) * up(x_))
void Forward::add_mlp(const Mlp& mlp, double factor) {
  gate_.resize(static_cast<size_t>(mlp.gate.rows));
  up_.resize(gate_.size());
  multiply(mlp.gate, x_, gate_);
  multiply(mlp.up, x_, up_);
  for (size_t c = 0; c < gate_.size(); ++c) gate_[c] = silu(gate_[c]) * up_[c];
  o_.resize(branch_.size());
  multiply(mlp.down, gate_, o_);
  for (size_t c = 0; c < branch_.size(); ++c) branch_[c] += factor * o_[c];
}

// y = x · Wᵀ. After a cancel it does nothing: the step runs to its end on values that nobody reads.
void Forward::multiply(const Weight& weight, std::span<const double> x, std::span<double> y) {
  for (int64_t row = 0; row < weight.rows && !cancelled_; ++row) {
    const float* w = &weight.values[static_cast<size_t>(row * weight.cols)];
    double sum = 0.0;
    for (int64_t col = 0; col < weight.cols; ++col) sum += static_cast<double>(w[col]) * x[static_cast<size_t>(col)];
    y[static_cast<size_t>(row)] = sum;
    worked(weight.cols);
  }
}

void Forward::worked(int64_t multiply_adds) {
  since_poll_ += multiply_adds;
  if (since_poll_ < kMultiplyAddsPerPoll) return;
  since_poll_ = 0;
  if (poll_ != nullptr && poll_->cancelled != nullptr && poll_->cancelled(poll_->context) != 0) cancelled_ = true;
}

}  // namespace ringside::reference
