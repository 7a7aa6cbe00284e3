// Owns: a random model on both sides of the bus and its forward pass, row by row, in double precision. Numbers are
// rounded to bf16 where the step path says that it rounds them, so that only the order of its sums is left to differ.
#pragma once

#include <cmath>
#include <future>
#include <limits>
#include <memory>

#include "device_data.h"

namespace ringside::cuda::test {

struct StepFormat {
  MatrixFormat format = MatrixFormat::kQ8;
  int group_columns = 64;
  bool offsets = false;
  bool fine_router = false;  // weights of more than bf16
  rs_kv_format kv = RS_KV_BF16;
};

inline double round_bf16(double v) { return from_bf16(to_bf16(static_cast<float>(v))); }
inline double sigmoid64(double x) { return 1.0 / (1.0 + std::exp(-x)); }

struct HostMlp {
  HostMatrix gate, up, down;
};

struct HostLayer {
  bool softmax, dense;
  int kind_index;
  std::vector<float> input_norm, post_norm, query_norm, key_norm, output_norm, slopes, bias;
  HostMatrix qkv, output_gate, output;
  std::vector<HostMlp> mlps;   // of a mixture the experts, then the shared one
  std::vector<double> router;  // [experts, hidden]
};

// Memory of one session: S at the chunk's start, open rows, pages of softmax layers; as in SessionView.
struct HostSession {
  int64_t position = 0;
  std::vector<float> s, open_k, open_v;
  std::vector<std::vector<uint8_t>> pages;
};

// Keys or values of one head in a page.
struct PagePart {
  rs_kv_format format;
  uint8_t* bytes;

  float* scales() const { return reinterpret_cast<float*>(bytes + page_part_values()); }
  float at(int64_t slot, int channel) const {
    const int64_t i = slot * 128 + channel;
    return format == RS_KV_Q8 ? static_cast<float>(static_cast<int8_t>(bytes[i])) * scales()[slot]
                              : from_bf16(reinterpret_cast<const bf16*>(bytes)[i]);
  }
  void put(int64_t slot, const std::vector<double>& row) const {
    double largest = 0.0;
    for (double v : row) largest = std::max(largest, std::abs(v));
    if (format == RS_KV_Q8) scales()[slot] = static_cast<float>(largest / 127.0);
    for (int a = 0; a < 128; a++) {
      const int64_t i = slot * 128 + a;
      if (format == RS_KV_Q8) {
        bytes[i] =
            static_cast<uint8_t>(static_cast<int8_t>(largest > 0.0 ? std::nearbyint(row[a] * 127.0 / largest) : 0.0));
      } else {
        reinterpret_cast<bf16*>(bytes)[i] = to_bf16(static_cast<float>(row[a]));
      }
    }
  }
};

class StepModel {
 public:
  StepModel(const rs_config& config, const StepFormat& format, uint32_t seed) : config_(config), format_(format) {
    model_.config = config;
    model_.width = config.heads * 128, model_.kv_width = config.kv_heads * 128;
    model_.has_shared = config.shared_width > 0, model_.kv_format = format.kv;
    for (int j = 0; j < config.rotary_dim / 2; j++) {
      inv_freq_.push_back(static_cast<float>(std::pow(1e6, -2.0 * j / config.rotary_dim)));
    }
    model_.inv_freq = keep(inv_freq_);
    embedding_ = matrix(config.vocab_rows, config.hidden, seed);
    for (float& scale : embedding_.scales) scale *= std::sqrt(static_cast<float>(config.hidden));
    revalue(embedding_);
    lm_head_ = matrix(config.vocab_rows, config.hidden, seed + 1);
    final_norm_ = norm(config.hidden, seed + 2);
    model_.embedding = keep(embedding_), model_.lm_head = keep(lm_head_), model_.final_norm = keep(final_norm_);
    for (int i = 0; i < config.layers; i++) add_layer(i, seed + 1000 * (i + 1));
  }

  const DeviceModel& device() const { return model_; }
  const rs_config& config() const { return config_; }

  HostSession session(int64_t position, int64_t pages, uint32_t seed) const {
    HostSession h;
    h.position = position;
    const size_t heads = static_cast<size_t>(model_.linear_layers) * config_.heads;
    h.s = position < 64 ? std::vector<float>(heads * 16384, 0.0f) : random_floats(heads * 16384, seed, 0.7f);
    h.open_k = random_floats(heads * 64 * 128, seed + 1), h.open_v = random_floats(heads * 64 * 128, seed + 2);
    const float poison = std::numeric_limits<float>::quiet_NaN();  // of rows that are not there yet
    for (size_t i = 0; i < heads * 64; i++) {
      if (static_cast<int64_t>(i % 64) < position % 64) continue;
      std::fill_n(&h.open_k[i * 128], 128, poison), std::fill_n(&h.open_v[i * 128], 128, poison);
    }
    const int parts = model_.softmax_layers * config_.kv_heads * 2;
    for (int64_t p = 0; p < pages; p++) {
      h.pages.emplace_back(static_cast<size_t>(parts * page_part_bytes(format_.kv)));
      const std::vector<bf16> values =
          random_bf16(static_cast<size_t>(parts) * 256 * 128, seed + 3 + static_cast<uint32_t>(p));
      for (int part = 0; part < parts; part++) {
        for (int64_t slot = 0; slot < 256; slot++) {
          const bf16* from = &values[static_cast<size_t>((part * 256 + slot) * 128)];
          const bool is_there = p * 256 + slot < position;
          const PagePart to = part_of(h.pages.back(), part);
          to.put(slot, is_there ? std::vector<double>(from, from + 128) : std::vector<double>(128, poison));
          if (!is_there && format_.kv == RS_KV_Q8) to.scales()[slot] = poison;
        }
      }
    }
    return h;
  }

  PagePart part_of(std::vector<uint8_t>& page, int64_t part) const {
    return {format_.kv, &page[static_cast<size_t>(part * page_part_bytes(format_.kv))]};
  }
  // All numbers of a page.
  std::vector<float> page_numbers(std::vector<uint8_t> page) const {
    std::vector<float> out;
    for (int part = 0; part < model_.softmax_layers * config_.kv_heads * 2; part++) {
      for (int i = 0; i < 256 * 128; i++) out.push_back(part_of(page, part).at(i / 128, i % 128));
    }
    return out;
  }

  // How near the last step came to another choice of experts: a rounding may then lead to other experts, rightly.
  double margin() const { return margin_; }

  // One token; `session` becomes what it is afterwards (S' goes to s at the end of a chunk).
  std::vector<double> step(HostSession& session, int token) const {
    margin_ = 1e300;
    std::vector<double> h(static_cast<size_t>(config_.hidden));
    for (int c = 0; c < config_.hidden; c++) {
      h[c] = embedding_.values[static_cast<size_t>(token) * config_.hidden + c];
    }
    for (const HostLayer& layer : layers_) {
      attend(layer, session, h);
      feed_forward(layer, h);
    }
    session.position++;
    return multiply(lm_head_, rounded(normed(h, final_norm_)));
  }

 private:
  HostMatrix matrix(int rows, int columns, uint32_t seed) const {
    return random_matrix(format_.format, rows, columns, format_.group_columns, format_.offsets, seed);
  }
  static void revalue(HostMatrix& m) {
    if (m.format == MatrixFormat::kBF16) return;
    for (size_t i = 0; i < m.values.size(); i++) {
      const size_t group = i / m.columns * m.groups() + i % m.columns / m.group_columns;
      double code = static_cast<int8_t>(m.codes[i]);
      if (m.format == MatrixFormat::kQ4) code = m.codes[i] - 8;
      if (m.format == MatrixFormat::kFP8) code = fp8_value(m.codes[i]);
      m.values[i] = code * m.scales[group] + (m.offsets.empty() ? 0.0f : m.offsets[group]);
    }
  }
  std::vector<float> norm(int length, uint32_t seed) const {
    std::vector<float> out = random_floats(static_cast<size_t>(length), seed, 0.2f);
    for (float& v : out) v += 1.0f;
    return out;
  }
  const float* keep(const std::vector<float>& values) {
    floats_.emplace_back(values);
    return floats_.back().get();
  }
  DeviceMatrix keep(const HostMatrix& m) { return keep(std::vector<HostMatrix>{m}).first; }
  DeviceStack keep(const std::vector<HostMatrix>& m) {
    stacks_.push_back(upload(m));
    return stacks_.back().stack;
  }

  void add_layer(int index, uint32_t seed) {
    const rs_config& c = config_;
    HostLayer h{};
    DeviceLayer d{};
    h.softmax = (index + 1) % c.group == 0 || index >= c.layers / c.group * c.group;
    h.dense = index < c.dense_layers;
    h.kind_index = h.softmax ? model_.softmax_layers++ : model_.linear_layers++;
    d.is_softmax = h.softmax, d.is_dense = h.dense, d.kind_index = h.kind_index;
    d.input_norm = keep(h.input_norm = norm(c.hidden, seed + 1));
    d.post_attention_norm = keep(h.post_norm = norm(c.hidden, seed + 2));
    d.query_norm = keep(h.query_norm = norm(128, seed + 3)), d.key_norm = keep(h.key_norm = norm(128, seed + 4));
    d.qkv = keep(h.qkv = matrix(h.softmax ? model_.width + 2 * model_.kv_width : 3 * model_.width, c.hidden, seed + 5));
    d.dense = keep(h.output = matrix(c.hidden, model_.width, seed + 6));
    if (!h.softmax) {
      d.output_gate = keep(h.output_gate = matrix(model_.width, c.hidden, seed + 7));
      d.output_norm = keep(h.output_norm = norm(model_.width, seed + 8));
      for (int i = 0; i < c.heads; i++)
        h.slopes.push_back(std::exp2(-8.0f * (i + 1) / c.heads) * (1.0f - 0.2f * index));
      d.slopes = keep(h.slopes);
    }
    if (!h.dense) add_router(h, d, seed + 9);
    const int count = h.dense ? 1 : c.experts + model_.has_shared, width = h.dense ? c.dense_width : c.expert_width;
    std::vector<std::future<HostMlp>> made;  // side by side: a mixture has many numbers
    for (int e = 0; e < count; e++) {
      const uint32_t at = seed + 20 + 3 * static_cast<uint32_t>(e);
      made.push_back(std::async(std::launch::async, [this, &c, width, at] {
        return HostMlp{matrix(width, c.hidden, at), matrix(width, c.hidden, at + 1), matrix(c.hidden, width, at + 2)};
      }));
    }
    std::vector<HostMatrix> gate_up, down;
    for (std::future<HostMlp>& mlp : made) {
      h.mlps.push_back(mlp.get());
      gate_up.push_back(interleave(h.mlps.back().gate, h.mlps.back().up)), down.push_back(h.mlps.back().down);
    }
    d.mlp.gate_up = keep(gate_up), d.mlp.down = keep(down), d.mlp.width = width;
    layers_.push_back(std::move(h));
    model_.layers.push_back(d);
  }

  // W_hi | W_hi and, of a fine router, | W_lo.
  void add_router(HostLayer& h, DeviceLayer& d, uint32_t seed) {
    const size_t hidden = static_cast<size_t>(config_.hidden), parts = format_.fine_router ? 3 : 2;
    const std::vector<float> weights =
        random_floats(config_.experts * hidden, seed, 1.0f / std::sqrt(static_cast<float>(hidden)));
    HostMatrix m{MatrixFormat::kBF16, config_.experts, static_cast<int>(parts * hidden), 0, {}, {}, {}, {}, {}};
    m.numbers.resize(config_.experts * parts * hidden);
    for (size_t i = 0; i < weights.size(); i++) {
      bf16* row = &m.numbers[i / hidden * parts * hidden + i % hidden];
      row[0] = row[hidden] = to_bf16(weights[i]);
      if (parts == 3) row[2 * hidden] = to_bf16(weights[i] - from_bf16(row[0]));
      h.router.push_back(from_bf16(row[0]) + (parts == 3 ? from_bf16(row[2 * hidden]) : 0.0));
    }
    d.router = keep(m);
    if (config_.expert_bias) d.expert_bias = keep(h.bias = random_floats(config_.experts, seed + 1, 0.1f));
  }

  static std::vector<double> multiply(const HostMatrix& m, const std::vector<double>& x) {
    constexpr int kSums = 8;  // one alone would wait for each addition; columns come in 128s
    std::vector<double> y(static_cast<size_t>(m.rows));
    for (int r = 0; r < m.rows; r++) {
      const double* w = &m.values[static_cast<size_t>(r) * m.columns];
      double sums[kSums] = {};
      for (int c = 0; c < m.columns; c += kSums) {
        for (int i = 0; i < kSums; i++) sums[i] += w[c + i] * x[c + i];
      }
      for (const double sum : sums) y[r] += sum;
    }
    return y;
  }
  static std::vector<double> rounded(std::vector<double> x) {
    for (double& v : x) v = round_bf16(v);
    return x;
  }
  std::vector<double> normed(const std::vector<double>& x, const std::vector<float>& weight) const {
    double sum = 0.0;
    for (double v : x) sum += v * v;
    std::vector<double> out = x;
    for (size_t i = 0; i < x.size(); i++) {
      out[i] *= weight[i] / std::sqrt(sum / static_cast<double>(x.size()) + config_.rms_eps);
    }
    return out;
  }

  // A head of q or k: norm, rotation.
  std::vector<double> turned(const double* from, const std::vector<float>& weight, int64_t position) const {
    std::vector<double> out = normed(std::vector<double>(from, from + 128), weight);
    const size_t half = inv_freq_.size();
    for (size_t j = 0; j < half; j++) {
      const float angle = static_cast<float>(position) * inv_freq_[j];
      const double c = std::cos(static_cast<double>(angle)), s = std::sin(static_cast<double>(angle));
      const double low = out[j], high = out[j + half];
      out[j] = low * c - high * s, out[j + half] = high * c + low * s;
    }
    return out;
  }

  void attend(const HostLayer& layer, HostSession& session, std::vector<double>& h) const {
    const std::vector<double> x = rounded(normed(h, layer.input_norm));
    std::vector<double> qkv = multiply(layer.qkv, x), o;
    if (layer.softmax) {
      o = attend_pages(layer, session, qkv);
    } else {
      if (config_.linear_silu) {
        for (double& v : qkv) v *= sigmoid64(v);
      }
      o = attend_state(layer, session, qkv);
      const std::vector<double> gate = multiply(layer.output_gate, x);
      const size_t group = o.size() / config_.norm_groups;
      for (size_t g = 0; g < o.size(); g += group) {
        const std::vector<double> part = normed({o.begin() + g, o.begin() + g + group},
                                                {layer.output_norm.begin() + g, layer.output_norm.begin() + g + group});
        for (size_t i = 0; i < group; i++) o[g + i] = part[i] * sigmoid64(gate[g + i]);
      }
    }
    const std::vector<double> y = multiply(layer.output, rounded(o));
    for (size_t i = 0; i < h.size(); i++) h[i] += y[i];
  }

  std::vector<double> attend_state(const HostLayer& layer, HostSession& session, const std::vector<double>& qkv) const {
    const int64_t i = session.position % 64, width = model_.width;
    std::vector<double> o(static_cast<size_t>(width));
    for (int head = 0; head < config_.heads; head++) {
      const size_t at = static_cast<size_t>(layer.kind_index) * config_.heads + head;
      const double slope = layer.slopes[head];
      float *s = &session.s[at * 16384], *open_k = &session.open_k[at * 8192], *open_v = &session.open_v[at * 8192];
      const std::vector<double> q = turned(&qkv[head * 128], layer.query_norm, session.position);
      const std::vector<double> k = turned(&qkv[width + head * 128], layer.key_norm, session.position);
      for (int a = 0; a < 128; a++) {
        open_k[i * 128 + a] = static_cast<float>(k[a]);
        open_v[i * 128 + a] = static_cast<float>(qkv[2 * width + head * 128 + a]);
      }
      double* out = &o[head * 128];
      double decay[65];  // exp(-s n)
      for (int n = 0; n <= 64; n++) decay[n] = std::exp(-slope * n);
      for (int a = 0; a < 128; a++) {
        const double factor = decay[i + 1] * q[a] / std::sqrt(128.0);
        for (int b = 0; b < 128; b++) out[b] += factor * s[a * 128 + b];
      }
      for (int64_t j = 0; j <= i; j++) {
        double dot = 0.0;
        for (int a = 0; a < 128; a++) dot += q[a] * open_k[j * 128 + a] / std::sqrt(128.0);
        for (int b = 0; b < 128; b++) out[b] += decay[i - j] * dot * open_v[j * 128 + b];
      }
      if (i < 63) continue;
      for (int a = 0; a < 128; a++) {
        double row[128];
        for (int b = 0; b < 128; b++) row[b] = decay[64] * s[a * 128 + b];
        for (int j = 0; j < 64; j++) {
          const double factor = decay[63 - j] * open_k[j * 128 + a];
          for (int b = 0; b < 128; b++) row[b] += factor * open_v[j * 128 + b];
        }
        for (int b = 0; b < 128; b++) s[a * 128 + b] = static_cast<float>(row[b]);
      }
    }
    return o;
  }

  std::vector<double> attend_pages(const HostLayer& layer, HostSession& session, const std::vector<double>& qkv) const {
    const int64_t position = session.position;
    const auto part_at = [&](int64_t at, int kv_head, int part) {
      return part_of(session.pages[static_cast<size_t>(at / 256)],
                     (static_cast<int64_t>(layer.kind_index) * config_.kv_heads + kv_head) * 2 + part);
    };
    for (int head = 0; head < config_.kv_heads; head++) {
      const double *k = &qkv[model_.width + head * 128], *v = k + model_.kv_width;
      part_at(position, head, 0).put(position % 256, turned(k, layer.key_norm, position));
      part_at(position, head, 1).put(position % 256, {v, v + 128});
    }
    std::vector<double> o(static_cast<size_t>(model_.width));
    for (int head = 0; head < config_.heads; head++) {
      const int kv_head = head / (config_.heads / config_.kv_heads);
      std::vector<double> q = turned(&qkv[head * 128], layer.query_norm, position), score;
      for (double& v : q) v = round_bf16(v / std::sqrt(128.0) * 1.4426950408889634);
      double largest = -1e300, sum = 0.0;
      for (int64_t t = 0; t <= position; t++) {
        double dot = 0.0;
        const PagePart keys = part_at(t, kv_head, 0);
        for (int a = 0; a < 128; a++) dot += q[a] * keys.at(t % 256, a);
        score.push_back(dot);
        largest = std::max(largest, dot);
      }
      for (double& v : score) sum += v = std::exp2(v - largest);
      for (int64_t t = 0; t <= position; t++) {
        const PagePart values = part_at(t, kv_head, 1);
        for (int a = 0; a < 128; a++) o[head * 128 + a] += score[t] / sum * values.at(t % 256, a);
      }
    }
    return o;
  }

  static int best_of(const std::vector<double>& values, std::vector<bool>& taken) {
    int best = -1;
    for (size_t i = 0; i < values.size(); i++) {
      if (!taken[i] && (best < 0 || values[i] > values[best])) best = static_cast<int>(i);
    }
    taken[best] = true;
    return best;
  }

  void note_margin(const std::vector<double>& values, const std::vector<bool>& taken) const {
    double worst_taken = 1e300, best_left = -1e300;
    for (size_t i = 0; i < values.size(); i++) {
      if (taken[i]) worst_taken = std::min(worst_taken, values[i]);
      if (!taken[i]) best_left = std::max(best_left, values[i]);
    }
    margin_ = std::min(margin_, worst_taken - best_left);
  }

  // Experts ascending and their weights, by the words of the specification.
  std::vector<std::pair<int, double>> route(const HostLayer& layer, const std::vector<double>& x) const {
    const size_t experts = config_.experts, group = experts / config_.expert_groups;
    std::vector<double> s(experts), c(experts), groups(config_.expert_groups);
    for (size_t e = 0; e < experts; e++) {
      double logit = 0.0;
      for (size_t i = 0; i < x.size(); i++) logit += layer.router[e * x.size() + i] * x[i];
      s[e] = sigmoid64(logit);
      c[e] = s[e] + (layer.bias.empty() ? 0.0 : layer.bias[e]);
    }
    for (size_t g = 0; g < groups.size(); g++) {
      std::vector<double> sorted(c.begin() + g * group, c.begin() + (g + 1) * group);
      std::sort(sorted.rbegin(), sorted.rend());
      groups[g] = sorted[0] + (group > 1 ? sorted[1] : 0.0);
    }
    std::vector<bool> kept(groups.size()), taken(experts);
    for (int i = 0; i < config_.groups_per_token; i++) best_of(groups, kept);
    note_margin(groups, kept);
    for (size_t e = 0; e < experts; e++) {
      if (!kept[e / group]) c[e] = -1e300;
    }
    std::vector<std::pair<int, double>> chosen;
    double sum = 1e-20;
    for (int i = 0; i < config_.experts_per_token; i++) {
      const int e = best_of(c, taken);
      chosen.emplace_back(e, s[e]);
      sum += s[e];
    }
    note_margin(c, taken);
    for (auto& [e, weight] : chosen) weight *= config_.routed_scale / sum;
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  }

  void feed_forward(const HostLayer& layer, std::vector<double>& h) const {
    const std::vector<double> x = normed(h, layer.post_norm);
    std::vector<std::pair<int, double>> chosen;
    if (!layer.dense) chosen = route(layer, x);
    if (layer.dense || model_.has_shared) chosen.emplace_back(static_cast<int>(layer.mlps.size()) - 1, 1.0);
    const std::vector<double> input = rounded(x);
    for (const auto& [e, weight] : chosen) {
      const HostMlp& mlp = layer.mlps[e];
      std::vector<double> gate = multiply(mlp.gate, input);
      const std::vector<double> up = multiply(mlp.up, input);
      for (size_t i = 0; i < gate.size(); i++) gate[i] = round_bf16(weight * gate[i] * sigmoid64(gate[i]) * up[i]);
      const std::vector<double> y = multiply(mlp.down, gate);
      for (size_t i = 0; i < h.size(); i++) h[i] += y[i];
    }
  }

  rs_config config_;
  StepFormat format_;
  DeviceModel model_{};
  mutable double margin_ = 0.0;
  std::vector<float> inv_freq_, final_norm_;
  HostMatrix embedding_, lm_head_;
  std::vector<HostLayer> layers_;
  std::vector<DeviceBuffer<float>> floats_;
  std::vector<DeviceStackData> stacks_;
};

// A session's memory on the device.
struct DeviceSession {
  explicit DeviceSession(const HostSession& h) : s(h.s), next_s(h.s.size()), open_k(h.open_k), open_v(h.open_v) {
    std::vector<uint8_t*> pointers;
    for (const auto& page : h.pages) {
      pages.emplace_back(page);
      pointers.push_back(pages.back().get());
    }
    table = DeviceBuffer<uint8_t*>(pointers);
    view = {s.get(), open_k.get(), open_v.get(), table.get(), h.position};
  }
  DeviceBuffer<float> s, next_s, open_k, open_v;
  std::vector<DeviceBuffer<uint8_t>> pages;
  DeviceBuffer<uint8_t*> table;
  SessionView view;
};

}  // namespace ringside::cuda::test
