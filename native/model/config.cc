#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>
#include <optional>
#include <string_view>

#include "io/json.h"
#include "model/generation_config.h"

namespace ringside {
namespace {

constexpr std::string_view kArchitecture = "BailingMoeLinearV2ForCausalLM";
constexpr std::string_view kModelType = "bailing_moe_linear";

// Several times what any released or announced model of the family has; beyond them a file is wrong, not large.
constexpr int64_t kMaxVocabRows = 1 << 20;
constexpr int64_t kMaxHidden = 1 << 15;
constexpr int64_t kMaxLayers = 256;
constexpr int64_t kMaxHeads = 256;
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxAttentionWidth = 1 << 16;  // heads * head_dim
constexpr int64_t kMaxMlpWidth = 1 << 18;
constexpr int64_t kMaxExperts = 1024;
constexpr int64_t kMaxSharedExperts = 64;
constexpr int64_t kMaxContextTokens = 1 << 22;  // positions stay exact in fp32
constexpr size_t kMaxStopTokens = 64;

constexpr int64_t kRequired = -1;

struct IntegerField {
  const char* name;
  int32_t Config::*member;
  int64_t min;
  int64_t max;
  int64_t fallback;  // the published configuration class's default, or kRequired
};

constexpr IntegerField kIntegerFields[] = {
    {"vocab_size", &Config::vocab_rows, 1, kMaxVocabRows, kRequired},
    {"hidden_size", &Config::hidden, 1, kMaxHidden, kRequired},
    {"num_hidden_layers", &Config::layers, 1, kMaxLayers, kRequired},
    {"layer_group_size", &Config::group, 1, kMaxLayers, 1},
    {"num_attention_heads", &Config::heads, 1, kMaxHeads, kRequired},
    {"num_key_value_heads", &Config::kv_heads, 1, kMaxHeads, kRequired},
    {"head_dim", &Config::head_dim, 2, kMaxHeadDim, kRequired},
    {"intermediate_size", &Config::dense_width, 1, kMaxMlpWidth, kRequired},
    {"moe_intermediate_size", &Config::expert_width, 1, kMaxMlpWidth, kRequired},
    {"num_experts", &Config::experts, 1, kMaxExperts, kRequired},
    {"num_experts_per_tok", &Config::experts_per_token, 1, kMaxExperts, kRequired},
    {"n_group", &Config::expert_groups, 1, kMaxExperts, kRequired},
    {"topk_group", &Config::groups_per_token, 1, kMaxExperts, kRequired},
    {"first_k_dense_replace", &Config::dense_layers, 0, kMaxLayers, kRequired},
    {"group_norm_size", &Config::norm_groups, 1, kMaxAttentionWidth, 1},
    {"max_position_embeddings", &Config::context_tokens, 1, kMaxContextTokens, 32'768},
};

// Fields that would change the mathematics this engine implements. Absent is right: the default is the value named.
struct FixedField {
  const char* name;
  const char* expected;  // as JSON
};

constexpr FixedField kFixedFields[] = {
    {"hidden_act", "\"silu\""},      {"score_function", "\"sigmoid\""}, {"norm_topk_prob", "true"},
    {"use_bias", "false"},           {"use_qkv_bias", "false"},         {"use_qk_norm", "true"},
    {"use_rmsnorm", "true"},         {"tie_word_embeddings", "false"},  {"linear_rope", "true"},
    {"use_sliding_window", "false"},
};

// A value in an error: short, and never more than a few words of the file.
std::string describe(json::Value value) {
  switch (value.kind()) {
    case json::Kind::kBool:
      return *value.as_bool() ? "true" : "false";
    case json::Kind::kInteger:
      return std::to_string(*value.as_integer());
    case json::Kind::kNumber: {
      char text[32];
      std::snprintf(text, sizeof text, "%g", *value.as_number());
      return text;
    }
    case json::Kind::kString:
      return json::quote(value.as_string().substr(0, 64));
    default:
      return json::kind_name(value.kind());
  }
}

class ConfigParser {
 public:
  ConfigParser(json::Value root, const std::string& path) : root_(root), path_(path) {}

  Result<Config> parse() {
    RS_CHECK(check_architecture());
    RS_CHECK(check_fixed_fields());
    for (const IntegerField& field : kIntegerFields) {
      RS_TRY(config_.*field.member, integer(field.name, field.min, field.max, field.fallback));
    }
    RS_TRY(const double rms_eps, real("rms_norm_eps", 1e-12, 1e-2, std::nullopt));
    RS_TRY(const double routed_scale, real("routed_scaling_factor", 1e-3, 1e3, 1.0));
    RS_TRY(config_.rope_theta, real("rope_theta", 1.0, 1e12, 600'000.0));
    config_.rms_eps = static_cast<float>(rms_eps);
    config_.routed_scale = static_cast<float>(routed_scale);
    RS_CHECK(read_shared_width());
    RS_CHECK(read_rotary_dim());
    // The newer spelling wins where a file has both.
    const bool newer = !root_.find("use_linear_silu").is_missing();
    RS_TRY(config_.linear_silu, boolean(newer ? "use_linear_silu" : "linear_silu", false));
    RS_TRY(config_.expert_bias, boolean("moe_router_enable_expert_bias", std::nullopt));
    RS_CHECK(cross_check());
    RS_CHECK(add_stop_tokens(root_, path_, config_));
    return config_;
  }

  static Status add_stop_tokens(json::Value root, const std::string& path, Config& config) {
    const json::Value eos = root.find("eos_token_id");
    if (eos.is_null()) return Unit{};
    const std::string subject = path + ": eos_token_id";
    const auto add = [&](json::Value value) {
      const std::optional<int64_t> id = value.as_integer();
      if (!id || *id < 0 || *id >= config.vocab_rows) return false;
      config.stop_tokens.push_back(static_cast<int32_t>(*id));
      return true;
    };
    const std::string expected = "token ids of 0 to " + std::to_string(config.vocab_rows - 1);
    if (eos.is_array()) {
      if (eos.size() > kMaxStopTokens) {
        return Error{ErrorKind::kConfigInvalid, subject, "at most " + std::to_string(kMaxStopTokens) + " ids",
                     std::to_string(eos.size())};
      }
      for (const json::Value id : eos) {
        if (!add(id)) return Error{ErrorKind::kConfigInvalid, subject, expected, describe(id)};
      }
    } else if (!add(eos)) {
      return Error{ErrorKind::kConfigInvalid, subject, expected, describe(eos)};
    }
    auto& ids = config.stop_tokens;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return Unit{};
  }

 private:
  Error invalid(const std::string& field, std::string expected, std::string actual) const {
    return Error{ErrorKind::kConfigInvalid, path_ + ": " + field, std::move(expected), std::move(actual)};
  }

  // Siblings of the family share most fields, so only the name tells whether the mathematics is ours.
  Status check_architecture() const {
    const json::Value architectures = root_.find("architectures");
    const json::Value model_type = root_.find("model_type");
    const auto unknown = [&](const char* field, std::string_view expected, json::Value actual) {
      return Error{ErrorKind::kArchitectureUnknown, path_ + ": " + field, std::string(expected), describe(actual)};
    };
    if (architectures.is_null() && model_type.is_null()) return unknown("architectures", kArchitecture, architectures);
    if (!architectures.is_null()) {
      if (architectures.size() != 1 || !architectures.is_array()) {
        return unknown("architectures", kArchitecture, architectures);
      }
      const json::Value name = *architectures.begin();
      if (name.as_string() != kArchitecture) return unknown("architectures", kArchitecture, name);
    }
    if (!model_type.is_null() && model_type.as_string() != kModelType) {
      return unknown("model_type", kModelType, model_type);
    }
    return Unit{};
  }

  Status check_fixed_fields() const {
    for (const FixedField& field : kFixedFields) {
      const json::Value value = root_.find(field.name);
      if (value.is_missing()) continue;
      if (describe(value) != field.expected) return invalid(field.name, field.expected, describe(value));
    }
    for (const char* field : {"rope_scaling", "rope_parameters"}) {
      const json::Value value = root_.find(field);
      if (!value.is_null()) return invalid(field, "null (scaled rotary positions are not supported)", describe(value));
    }
    return Unit{};
  }

  Result<int32_t> integer(const char* field, int64_t min, int64_t max, int64_t fallback) const {
    const json::Value value = root_.find(field);
    if (value.is_missing() && fallback != kRequired) return static_cast<int32_t>(fallback);
    const std::optional<int64_t> number = value.as_integer();
    if (!number || *number < min || *number > max) {
      return invalid(field, "an integer of " + std::to_string(min) + " to " + std::to_string(max), describe(value));
    }
    return static_cast<int32_t>(*number);
  }

  Result<double> real(const char* field, double min, double max, std::optional<double> fallback) const {
    const json::Value value = root_.find(field);
    if (value.is_missing() && fallback) return *fallback;
    const std::optional<double> number = value.as_number();
    if (!number || !(*number >= min && *number <= max)) {
      char expected[64];
      std::snprintf(expected, sizeof expected, "a number of %g to %g", min, max);
      return invalid(field, expected, describe(value));
    }
    return *number;
  }

  Result<bool> boolean(const char* field, std::optional<bool> fallback) const {
    const json::Value value = root_.find(field);
    if (value.is_missing() && fallback) return *fallback;
    const std::optional<bool> truth = value.as_bool();
    if (!truth) return invalid(field, "true or false", describe(value));
    return *truth;
  }

  Status read_shared_width() {
    config_.shared_width = 0;
    RS_TRY(const int32_t count, integer("num_shared_experts", 0, kMaxSharedExperts, kRequired));
    if (count == 0) return Unit{};
    RS_TRY(const int32_t width, integer("moe_shared_expert_intermediate_size", 1, kMaxMlpWidth, kRequired));
    if (int64_t{width} * count > kMaxMlpWidth) {
      return invalid("moe_shared_expert_intermediate_size",
                     "at most " + std::to_string(kMaxMlpWidth) + " for all shared experts",
                     std::to_string(int64_t{width} * count));
    }
    config_.shared_width = width * count;
    return Unit{};
  }

  Status read_rotary_dim() {
    if (!root_.find("rotary_dim").is_null()) {
      RS_TRY(config_.rotary_dim, integer("rotary_dim", 2, config_.head_dim, kRequired));
      if (config_.rotary_dim % 2 != 0)
        return invalid("rotary_dim", "an even number", std::to_string(config_.rotary_dim));
      return Unit{};
    }
    RS_TRY(const double factor, real("partial_rotary_factor", 1e-3, 1.0, std::nullopt));
    const double channels = config_.head_dim * factor;
    if (channels < 2 || std::fmod(channels, 2.0) != 0.0) {
      char actual[64];
      std::snprintf(actual, sizeof actual, "%g of %d channels", channels, config_.head_dim);
      return invalid("partial_rotary_factor", "an even number of rotated channels", actual);
    }
    config_.rotary_dim = static_cast<int32_t>(channels);
    return Unit{};
  }

  Status divides(const char* field, int64_t divisor, const char* of, int64_t number) const {
    if (number % divisor == 0) return Unit{};
    return invalid(field, "a divisor of " + std::string(of) + " (" + std::to_string(number) + ")",
                   std::to_string(divisor));
  }

  Status at_most(const char* field, int64_t value, const char* what, int64_t limit) const {
    if (value <= limit) return Unit{};
    return invalid(field, "at most " + std::string(what) + " (" + std::to_string(limit) + ")", std::to_string(value));
  }

  Status cross_check() const {
    const Config& c = config_;
    const int64_t attention_width = int64_t{c.heads} * c.head_dim;
    RS_CHECK(at_most("num_attention_heads × head_dim", attention_width, "the limit", kMaxAttentionWidth));
    RS_CHECK(divides("num_key_value_heads", c.kv_heads, "num_attention_heads", c.heads));
    RS_CHECK(divides("group_norm_size", c.norm_groups, "num_attention_heads × head_dim", attention_width));
    RS_CHECK(at_most("first_k_dense_replace", c.dense_layers, "num_hidden_layers", c.layers));
    RS_CHECK(divides("n_group", c.expert_groups, "num_experts", c.experts));
    const int64_t group_experts = c.experts / c.expert_groups;
    // A group is scored by its two best experts.
    if (group_experts < 2) return invalid("n_group", "at least 2 experts a group", std::to_string(group_experts));
    RS_CHECK(at_most("topk_group", c.groups_per_token, "n_group", c.expert_groups));
    return at_most("num_experts_per_tok", c.experts_per_token, "the experts of topk_group groups",
                   c.groups_per_token * group_experts);
  }

  json::Value root_;
  const std::string& path_;
  Config config_{};
};

// The geometric sequence of a power of two: s_h = 2^(-8(h+1)/n).
double power_of_two_slope(int32_t heads, int32_t head) { return std::exp2(-8.0 * (head + 1) / heads); }

double base_slope(int32_t heads, int32_t head) {
  int32_t power = 1;
  while (power * 2 <= heads) power *= 2;
  // Heads beyond a power of two take every other slope of the next longer sequence.
  return head < power ? power_of_two_slope(power, head) : power_of_two_slope(2 * power, 2 * (head - power));
}

}  // namespace

int32_t Config::linear_layers() const { return layers - softmax_layers(); }

int32_t Config::softmax_layers() const {
  int32_t count = 0;
  for (int32_t layer = 0; layer < layers; ++layer) count += is_softmax(layer) ? 1 : 0;
  return count;
}

float Config::slope(int32_t layer, int32_t head) const {
  int32_t step = layer;
  if (slope_form == SlopeForm::kB) step = layer - 1;
  if (slope_form == SlopeForm::kC) step = std::max(0, layer - 1);
  const double factor = layers == 1 ? 1.0 + 1e-5 : 1.0 - static_cast<double>(step) / (layers - 1) + 1e-5;
  return static_cast<float>(base_slope(heads, head) * factor);
}

float Config::inv_freq(int32_t j) const { return static_cast<float>(std::pow(rope_theta, -2.0 * j / rotary_dim)); }

Result<Config> parse_config(const std::string& text, const std::string& path) {
  try {
    json::Document document;
    RS_CHECK(document.parse(text, path));
    if (!document.root().is_object()) {
      return Error{ErrorKind::kFileMalformed, path, "an object", json::kind_name(document.root().kind())};
    }
    return ConfigParser(document.root(), path).parse();
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, path, "", ""};
  }
}

Status add_generation_config(const std::string& text, const std::string& path, Config& config) {
  try {
    json::Document document;
    RS_CHECK(document.parse(text, path));
    if (!document.root().is_object()) {
      return Error{ErrorKind::kFileMalformed, path, "an object", json::kind_name(document.root().kind())};
    }
    return ConfigParser::add_stop_tokens(document.root(), path, config);
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, path, "", ""};
  }
}

}  // namespace ringside
