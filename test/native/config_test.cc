// config.json: every field with every sort of wrong value, the checks between fields, and the numbers derived from it.
#include "model/config.h"

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "model/generation_config.h"

using namespace ringside;

namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

const Fields kMini = {
    {"architectures", "[\"BailingMoeLinearV2ForCausalLM\"]"},
    {"model_type", "\"bailing_moe_linear\""},
    {"vocab_size", "157184"},
    {"hidden_size", "2048"},
    {"num_hidden_layers", "20"},
    {"layer_group_size", "5"},
    {"num_attention_heads", "16"},
    {"num_key_value_heads", "4"},
    {"head_dim", "128"},
    {"intermediate_size", "5120"},
    {"moe_intermediate_size", "512"},
    {"moe_shared_expert_intermediate_size", "512"},
    {"num_shared_experts", "1"},
    {"num_experts", "256"},
    {"num_experts_per_tok", "8"},
    {"n_group", "8"},
    {"topk_group", "4"},
    {"first_k_dense_replace", "1"},
    {"group_norm_size", "4"},
    {"max_position_embeddings", "131072"},
    {"rms_norm_eps", "1e-6"},
    {"routed_scaling_factor", "2.5"},
    {"rope_theta", "1000000"},
    {"partial_rotary_factor", "0.5"},
    {"linear_silu", "false"},
    {"moe_router_enable_expert_bias", "true"},
    {"eos_token_id", "156892"},
};

std::string text_of(const Fields& fields) {
  std::string text = "{";
  for (const auto& [name, value] : fields) {
    text.append(text.size() > 1 ? ",\"" : "\"").append(name).append("\":").append(value);
  }
  return text + "}";
}

Fields without(const std::string& name) {
  Fields fields;
  for (const auto& field : kMini) {
    if (field.first != name) fields.push_back(field);
  }
  return fields;
}

Fields with(const std::string& name, const std::string& value) {
  Fields fields = without(name);
  fields.emplace_back(name, value);
  return fields;
}

// "ok", or the kind of the error and whether it names the field.
std::string outcome(const Fields& fields, const std::string& field) {
  const Result<Config> config = parse_config(text_of(fields), "config.json");
  if (config.ok()) return "ok";
  const Error& error = config.error();
  const bool named = error.subject.find(field) != std::string::npos && !error.expected.empty();
  return std::string(error_kind_name(error.kind)) + (named ? "" : " without the name: " + error.message());
}

void expect(const Fields& fields, const std::string& field, const std::string& expected, const std::string& what) {
  const std::string got = outcome(fields, field);
  if (got != expected) check::fail(__FILE__, __LINE__, field + " " + what + ": " + got + ", not " + expected);
}

Config mini() { return parse_config(text_of(kMini), "config.json").value(); }

// The printed values have nine digits and the slopes are fp32.
bool near(double a, double b) { return std::fabs(a - b) <= 1e-7 * std::fabs(b); }

}  // namespace

TEST("config: the mini model's fields") {
  const Config c = mini();
  CHECK_EQ(c.vocab_rows, 157184);
  CHECK_EQ(c.shared_width, 512);
  CHECK_EQ(c.rotary_dim, 64);
  CHECK_EQ(c.linear_layers(), 16);
  CHECK_EQ(c.softmax_layers(), 4);
  CHECK(c.is_softmax(4) && c.is_softmax(19) && !c.is_softmax(0) && !c.is_softmax(18));
  CHECK(c.is_dense(0) && !c.is_dense(1));
  CHECK(c.stop_tokens == std::vector<int32_t>({156892}));
  CHECK_EQ(c.rms_eps, 1e-6f);
  CHECK_EQ(c.routed_scale, 2.5f);
}

TEST("config: every whole number, with every sort of wrong value") {
  struct Row {
    const char* name;
    int64_t max;
    bool zero_is_right;
    bool may_be_missing;
  };
  const std::vector<Row> rows = {
      {"vocab_size", 1 << 20, false, false},
      {"hidden_size", 1 << 15, false, false},
      {"num_hidden_layers", 256, false, false},
      {"layer_group_size", 256, false, true},
      {"num_attention_heads", 256, false, false},
      {"num_key_value_heads", 256, false, false},
      {"head_dim", 512, false, false},
      {"intermediate_size", 1 << 18, false, false},
      {"moe_intermediate_size", 1 << 18, false, false},
      {"moe_shared_expert_intermediate_size", 1 << 18, false, false},
      {"num_shared_experts", 64, true, false},
      {"num_experts", 1024, false, false},
      {"num_experts_per_tok", 1024, false, false},
      {"n_group", 1024, false, false},
      {"topk_group", 1024, false, false},
      {"first_k_dense_replace", 256, true, false},
      {"group_norm_size", 1 << 16, false, true},
      {"max_position_embeddings", 1 << 22, false, true},
      {"rotary_dim", 128, false, true},
  };
  for (const Row& row : rows) {
    for (const char* value :
         {"\"4\"", "true", "[4]", "{}", "4.0", "4.5", "4e0", "-1", "-2147483648", "2147483648", "4294967297",
          "9007199254740992", "9223372036854775807", "18446744073709551616", "1e308"}) {
      expect(with(row.name, value), row.name, "config-invalid", value);
    }
    if (std::string(row.name) != "rotary_dim") expect(with(row.name, "null"), row.name, "config-invalid", "null");
    for (const char* value : {"NaN", "Infinity", "-Infinity", "1e999", "04", "+4", "0x4"}) {
      const auto config = parse_config(text_of(with(row.name, value)), "config.json");
      if (config.ok() || config.error().kind != ErrorKind::kFileMalformed) check::fail(__FILE__, __LINE__, row.name);
    }
    expect(with(row.name, "0"), row.name, row.zero_is_right ? "ok" : "config-invalid", "0");
    expect(with(row.name, std::to_string(row.max + 1)), row.name, "config-invalid", "one above the limit");
    expect(without(row.name), row.name, row.may_be_missing ? "ok" : "config-invalid", "missing");
  }
}

TEST("config: every real number, with every sort of wrong value") {
  struct Row {
    const char* name;
    bool may_be_missing;
  };
  for (const Row& row : std::vector<Row>{{"rms_norm_eps", false},
                                         {"routed_scaling_factor", true},
                                         {"rope_theta", true},
                                         {"partial_rotary_factor", false}}) {
    for (const char* value :
         {"\"1\"", "true", "null", "[1]", "-1", "0", "0.0", "1e-300", "9007199254740992", "1e308"}) {
      expect(with(row.name, value), row.name, "config-invalid", value);
    }
    expect(with(row.name, "NaN"), "config.json", "file-malformed", "NaN");
    expect(without(row.name), row.name, row.may_be_missing ? "ok" : "config-invalid", "missing");
  }
}

TEST("config: truths") {
  for (const char* name : {"linear_silu", "use_linear_silu", "moe_router_enable_expert_bias"}) {
    for (const char* value : {"0", "1", "null", "\"true\"", "[]"}) {
      expect(with(name, value), name, "config-invalid", value);
    }
  }
  expect(without("moe_router_enable_expert_bias"), "moe_router_enable_expert_bias", "config-invalid", "missing");
  CHECK(!mini().linear_silu);
  Fields both = with("linear_silu", "false");
  both.emplace_back("use_linear_silu", "true");
  CHECK(parse_config(text_of(both), "x").value().linear_silu);
}

TEST("config: fields that would change the mathematics") {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"hidden_act", "\"gelu\""},
      {"score_function", "\"softmax\""},
      {"norm_topk_prob", "false"},
      {"use_bias", "true"},
      {"use_qkv_bias", "true"},
      {"use_qk_norm", "false"},
      {"use_rmsnorm", "false"},
      {"tie_word_embeddings", "true"},
      {"linear_rope", "false"},
      {"use_sliding_window", "true"},
      {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4.0}"},
      {"rope_parameters", "{}"},
      {"rope_scaling", "\"yarn\""},
      {"tie_word_embeddings", "0"},
      {"hidden_act", "null"},
  };
  for (const auto& [name, value] : wrong) expect(with(name, value), name, "config-invalid", value);
  const Fields right = {{"hidden_act", "\"silu\""},     {"score_function", "\"sigmoid\""}, {"norm_topk_prob", "true"},
                        {"use_bias", "false"},          {"use_qkv_bias", "false"},         {"use_qk_norm", "true"},
                        {"use_rmsnorm", "true"},        {"tie_word_embeddings", "false"},  {"rope_scaling", "null"},
                        {"use_sliding_window", "false"}};
  for (const auto& [name, value] : right) expect(with(name, value), name, "ok", value);
}

TEST("config: only this architecture") {
  for (const char* value : {"[\"BailingMoeV2ForCausalLM\"]", "[\"BailingMoeV2_5ForCausalLM\"]", "[]", "[1]", "{}",
                            "[\"BailingMoeLinearV2ForCausalLM\",\"Other\"]", "\"BailingMoeLinearV2ForCausalLM\""}) {
    expect(with("architectures", value), "architectures", "architecture-unknown", value);
  }
  for (const char* value : {"\"bailing_hybrid\"", "\"llama\"", "1", "\"\""}) {
    expect(with("model_type", value), "model_type", "architecture-unknown", value);
  }
  expect(without("architectures"), "architectures", "ok", "missing, model_type given");
  expect(without("model_type"), "model_type", "ok", "missing, architectures given");
  CHECK(parse_config("{}", "x").error().kind == ErrorKind::kArchitectureUnknown);
  for (const char* text : {"", "[]", "1", "{", "null"}) {
    CHECK(parse_config(text, "x").error().kind == ErrorKind::kFileMalformed);
  }
}

TEST("config: fields must fit one another") {
  expect(with("num_key_value_heads", "3"), "num_key_value_heads", "config-invalid", "3 of 16");
  expect(with("num_key_value_heads", "32"), "num_key_value_heads", "config-invalid", "more than heads");
  expect(with("group_norm_size", "3"), "group_norm_size", "config-invalid", "3");
  expect(with("group_norm_size", "4096"), "group_norm_size", "config-invalid", "wider than all heads");
  expect(with("n_group", "7"), "n_group", "config-invalid", "7 of 256");
  expect(with("n_group", "256"), "n_group", "config-invalid", "one expert a group");
  expect(with("topk_group", "9"), "topk_group", "config-invalid", "9 of 8");
  expect(with("num_experts_per_tok", "129"), "num_experts_per_tok", "config-invalid", "129 of 4 * 32");
  expect(with("num_experts_per_tok", "128"), "num_experts_per_tok", "ok", "128 of 4 * 32");
  expect(with("first_k_dense_replace", "21"), "first_k_dense_replace", "config-invalid", "21 of 20");
  expect(with("rotary_dim", "63"), "rotary_dim", "config-invalid", "odd");
  expect(with("rotary_dim", "130"), "rotary_dim", "config-invalid", "wider than a head");
  expect(with("partial_rotary_factor", "0.3"), "partial_rotary_factor", "config-invalid", "38.4 channels");
  expect(with("partial_rotary_factor", "0.0078125"), "partial_rotary_factor", "config-invalid", "one channel");
  expect(with("partial_rotary_factor", "1.5"), "partial_rotary_factor", "config-invalid", "1.5");
  expect(with("head_dim", "512"), "head_dim", "ok", "512 of 16 heads");
  Fields wide = with("head_dim", "512");
  for (auto& [name, value] : wide) {
    if (name == "num_attention_heads") value = "256";
  }
  expect(wide, "num_attention_heads × head_dim", "config-invalid", "256 heads of 512");
  Fields shared = with("num_shared_experts", "64");
  for (auto& [name, value] : shared) {
    if (name == "moe_shared_expert_intermediate_size") value = "262144";
  }
  expect(shared, "moe_shared_expert_intermediate_size", "config-invalid", "64 of the widest");
}

TEST("config: rotary_dim goes before partial_rotary_factor") {
  CHECK_EQ(parse_config(text_of(with("rotary_dim", "32")), "x").value().rotary_dim, 32);
  Fields fields = without("partial_rotary_factor");
  fields.emplace_back("rotary_dim", "128");
  CHECK_EQ(parse_config(text_of(fields), "x").value().rotary_dim, 128);
}

TEST("config: stop tokens of both files become one list") {
  for (const char* value : {"-1", "157184", "1.5", "\"2\"", "[1,\"2\"]", "[-1]", "[157184]", "{}", "true"}) {
    expect(with("eos_token_id", value), "eos_token_id", "config-invalid", value);
  }
  CHECK(parse_config(text_of(with("eos_token_id", "null")), "x").value().stop_tokens.empty());
  CHECK(parse_config(text_of(without("eos_token_id")), "x").value().stop_tokens.empty());
  Config config = mini();
  CHECK(add_generation_config("{\"eos_token_id\":[156895,156892,156895]}", "x", config).ok());
  CHECK(config.stop_tokens == std::vector<int32_t>({156892, 156895}));
  CHECK(add_generation_config("{\"eos_token_id\":7}", "x", config).ok());
  CHECK(config.stop_tokens == std::vector<int32_t>({7, 156892, 156895}));
  CHECK(add_generation_config("{}", "x", config).ok());
  CHECK(!add_generation_config("[]", "x", config).ok());
  CHECK(!add_generation_config("{\"eos_token_id\":157184}", "x", config).ok());
  std::string many = "[0";
  for (int i = 0; i < 64; ++i) many += ",0";
  CHECK(!add_generation_config("{\"eos_token_id\":" + many + "]}", "x", config).ok());
}

// Values printed in specification section 3.4.
TEST("config: decay slopes of the three forms") {
  Config c = mini();
  CHECK(near(c.slope(0, 0), 0.70710678 * 1.00001));
  CHECK(near(c.slope(1, 1), 0.5f * 0.947378421));
  CHECK(near(c.slope(18, 15), 0.00390625 * 0.052641579));
  CHECK(std::fabs(std::exp(-c.slope(0, 0)) - 0.493065) < 1e-6);
  c.slope_form = SlopeForm::kB;
  CHECK(near(c.slope(0, 1), 0.5 * 1.052641579));
  CHECK(near(c.slope(17, 1), 0.5 * 0.157904737));
  c.slope_form = SlopeForm::kC;
  CHECK(near(c.slope(0, 1), 0.5 * 1.00001));
  CHECK(near(c.slope(17, 1), 0.5 * 0.157904737));
  c.layers = 1;
  CHECK(near(c.slope(0, 1), 0.5 * 1.00001));
}

TEST("config: slopes of a head count that is no power of two") {
  Config c = mini();
  c.heads = 6;
  const double expected[] = {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125};
  for (int head = 0; head < 6; ++head) CHECK(near(c.slope(0, head), expected[head] * 1.00001));
  c.heads = 1;
  CHECK(near(c.slope(0, 0), 0.00390625 * 1.00001));
}

TEST("config: rotation frequencies are fp32") {
  const Config c = mini();
  CHECK_EQ(c.inv_freq(0), 1.0f);
  CHECK_EQ(c.inv_freq(16), static_cast<float>(std::pow(1e6, -0.5)));
  CHECK_EQ(c.inv_freq(31), static_cast<float>(std::pow(1e6, -62.0 / 64.0)));
}

TEST("config: an incomplete last group is softmax throughout") {
  Config c = mini();
  c.layers = 7;
  c.group = 3;
  std::string kinds;
  for (int layer = 0; layer < 7; ++layer) kinds += c.is_softmax(layer) ? 's' : 'l';
  CHECK_EQ(kinds, "llsllss");
  c.group = 9;
  CHECK_EQ(c.linear_layers(), 0);
}
