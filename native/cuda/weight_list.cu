#include <algorithm>
#include <utility>

#include "cuda/lent_rows.h"
#include "cuda/weight_list.h"

namespace ringside::cuda {
namespace {

using Kind = WeightTarget::Kind;

class Lister {
 public:
  Lister(const rs_weight_source& source, Weights& out, WeightList& list)
      : source_(source), model_(out.model), config_(out.model.config), slopes_(out.slopes), list_(list) {
    add_values(out.inv_freq.data(), static_cast<int64_t>(out.inv_freq.size()), &model_.inv_freq);
  }

  Status run() {
    RS_CHECK(add("model.word_embeddings", config_.vocab_rows, config_.hidden, &model_.embedding));
    for (int32_t i = 0; i < config_.layers; ++i) {
      DeviceLayer& layer = model_.layers[static_cast<size_t>(i)];
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      RS_CHECK(list_attention(i, prefix, layer));
      RS_CHECK(list_feed_forward(i, prefix + "mlp.", layer));
    }
    RS_CHECK(add_vector("model.norm.weight", config_.hidden, &model_.final_norm));
    return add("lm_head", config_.vocab_rows, config_.hidden, &model_.lm_head);
  }

 private:
  Status list_attention(int64_t index, const std::string& prefix, DeviceLayer& layer) {
    const std::string attention = prefix + "attention.";
    RS_CHECK(add_vector(prefix + "input_layernorm.weight", config_.hidden, &layer.input_norm));
    RS_CHECK(add_vector(prefix + "post_attention_layernorm.weight", config_.hidden, &layer.post_attention_norm));
    RS_CHECK(add_vector(attention + "query_layernorm.weight", config_.head_dim, &layer.query_norm));
    RS_CHECK(add_vector(attention + "key_layernorm.weight", config_.head_dim, &layer.key_norm));
    RS_CHECK(add(attention + "query_key_value", query_key_value_rows(model_, layer), config_.hidden, &layer.qkv));
    if (layer.is_softmax == 0) {
      RS_CHECK(add(attention + "g_proj", model_.width, config_.hidden, &layer.output_gate));
      RS_CHECK(add_vector(attention + "g_norm.weight", model_.width, &layer.output_norm));
      add_values(slopes_.data() + index * config_.heads, config_.heads, &layer.slopes);
    }
    return add(attention + "dense", config_.hidden, model_.width, &layer.dense);
  }

  Status list_feed_forward(int32_t index, const std::string& prefix, DeviceLayer& layer) {
    if (layer.is_dense != 0) return add_mlp({prefix}, config_.dense_width, layer.mlp, -1);
    WeightTarget router;
    router.kind = Kind::kRouter;
    router.bases = {prefix + "gate"};
    router.rows = config_.experts;
    router.columns = config_.hidden;
    router.matrix = &layer.router;
    RS_CHECK(add(std::move(router)));
    if (config_.expert_bias != 0) {
      RS_CHECK(add_vector(prefix + "gate.expert_bias", config_.experts, &layer.expert_bias));
    } else {
      const std::vector<float> none(static_cast<size_t>(config_.experts), 0.0f);
      add_values(none.data(), config_.experts, &layer.expert_bias);
    }
    std::vector<std::string> experts;
    for (int32_t e = 0; e < config_.experts; ++e) experts.push_back(prefix + "experts." + std::to_string(e) + ".");
    if (model_.has_shared != 0) experts.push_back(prefix + "shared_experts.");
    return add_mlp(experts, config_.expert_width, layer.mlp, index);
  }

  // `expert_layer`: -1 for one that is dense.
  Status add_mlp(const std::vector<std::string>& prefixes, int64_t width, DeviceMlp& to, int32_t expert_layer) {
    to.width = static_cast<int32_t>(width);
    WeightTarget gate_up;
    gate_up.kind = Kind::kGateUp;
    gate_up.expert_layer = expert_layer;
    gate_up.rows = width;
    gate_up.columns = config_.hidden;
    gate_up.stack = &to.gate_up;
    WeightTarget down;
    down.expert_layer = expert_layer;
    down.rows = config_.hidden;
    down.columns = width;
    down.stack = &to.down;
    for (const std::string& prefix : prefixes) {
      gate_up.bases.push_back(prefix + "gate_proj");
      gate_up.bases.push_back(prefix + "up_proj");
      down.bases.push_back(prefix + "down_proj");
    }
    RS_CHECK(add(std::move(gate_up)));
    return add(std::move(down));
  }

  Status add(const std::string& base, int64_t rows, int64_t columns, DeviceMatrix* to) {
    WeightTarget target;
    target.bases = {base};
    target.rows = rows;
    target.columns = columns;
    target.matrix = to;
    return add(std::move(target));
  }

  Status add(WeightTarget target) {
    RS_TRY(target.form, look_at(target, 0));
    // Experts are of one form nearly always; if any is not, it is the shared one, the last.
    for (size_t i = 1; i < target.bases.size(); ++i) {
      if (i >= 2 && i + static_cast<size_t>(target.parts()) < target.bases.size()) continue;
      RS_TRY(const WeightForm form, look_at(target, i));
      target.form = widest(target.form, form);
    }
    list_.targets.push_back(std::move(target));
    return Unit{};
  }

  Result<WeightForm> look_at(WeightTarget& target, size_t base_index) {
    const std::string& base = target.bases[base_index];
    LentRows lent(source_);
    RS_CHECK(lent.read(base, target.rows, target.columns, 0, std::min(target.rows, kTileRows)));
    rs_matrix whole = lent.get();
    whole.rows = target.rows;
    // Multiplied as fp32 numbers whatever it is stored in: close scores decide which experts run.
    if (target.kind == Kind::kRouter) {
      target.has_low = whole.format != RS_WEIGHT_BF16;
      return WeightForm{};
    }
    RS_CHECK(device_form(base, whole));
    return weight_form(base, whole);
  }

  Status add_vector(const std::string& name, int64_t length, const float** to) {
    std::vector<float> values(static_cast<size_t>(length));
    rs_error error{};
    if (source_.read_vector(source_.context, name.c_str(), length, values.data(), &error) != 0) return to_error(error);
    add_values(values.data(), length, to);
    return Unit{};
  }

  void add_values(const float* values, int64_t count, const float** to) {
    constexpr size_t kAlignment = 64;  // numbers: kernels load several at once
    list_.floats.resize((list_.floats.size() + kAlignment - 1) / kAlignment * kAlignment);
    list_.vectors.push_back({to, list_.floats.size()});
    list_.floats.insert(list_.floats.end(), values, values + count);
  }

  const rs_weight_source& source_;
  DeviceModel& model_;
  const rs_config& config_;
  const std::vector<float>& slopes_;
  WeightList& list_;
};

}  // namespace

DeviceMatrix WeightTarget::shape() const {
  DeviceMatrix matrix;
  matrix.format = form.format;
  matrix.rows = static_cast<int32_t>(rows * parts());
  matrix.columns = static_cast<int32_t>(kind == Kind::kRouter ? columns * (has_low ? 3 : 2) : columns);
  matrix.group_columns = form.group_columns;
  return matrix;
}

int64_t WeightTarget::tile_bytes() const {
  const int64_t floats = tile_scales() * (form.has_offsets ? 2 : 1);
  return tile_block_bytes() + floats * static_cast<int64_t>(sizeof(float));
}

void WeightTarget::cut(Carver& carver, uint8_t*& to_blocks, float*& to_scales, float*& to_offsets) const {
  const DeviceMatrix first = shape();
  carver.take(to_blocks, first.block_bytes() * entries());
  carver.take(to_scales, first.scale_count() * entries());
  if (form.has_offsets) carver.take(to_offsets, first.scale_count() * entries());
}

int64_t WeightTarget::bytes() const {
  Carver counter(nullptr);
  uint8_t* no_blocks = nullptr;
  float* no_floats = nullptr;
  cut(counter, no_blocks, no_floats, no_floats);
  return counter.bytes();
}

WeightBytes WeightList::bytes() const {
  WeightBytes sum;
  sum.resident = static_cast<int64_t>(floats.size() * sizeof(float)) + Carver::kAlignment;
  for (const WeightTarget& target : targets) {
    if (target.expert_layer < 0) {
      sum.resident += target.bytes();
      continue;
    }
    const auto layer = static_cast<size_t>(target.expert_layer);
    if (sum.experts.empty() || sum.experts.back().layer != layer) sum.experts.push_back({layer});
    (target.kind == Kind::kGateUp ? sum.experts.back().gate_up : sum.experts.back().down) = target.bytes();
  }
  return sum;
}

Status list_weights(const rs_weight_source& source, Weights& out, WeightList& list) {
  return Lister(source, out, list).run();
}

void place_target(WeightTarget& target, Carver& carver) {
  target.cut(carver, target.blocks, target.scales, target.offsets);
  DeviceMatrix first = target.shape();
  first.blocks = target.blocks;
  first.scales = first.group_columns == 0 ? nullptr : target.scales;
  first.offsets = target.form.has_offsets ? target.offsets : nullptr;
  if (target.matrix != nullptr) *target.matrix = first;
  if (target.stack != nullptr) *target.stack = {first, static_cast<int32_t>(target.entries())};
}

}  // namespace ringside::cuda
