// Owns: writing a checkpoint folder of a known shape with random weights, so that loading and quantising can be
// measured at full size without a download.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/checkpoint_tensors.h"
#include "model/float_formats.h"
#include "model/quantize_config.h"
#include "tools/bench_model.h"
#include "tools/commands.h"

namespace ringside::tools {
namespace {

constexpr const char* kUsage =
    "usage: ringside-tool random-checkpoint OUT --shape nano|nano8|mini|flash --quant bf16|q8|q4 [--head-bits 4|8] "
    "[--group 32|64|128] [--layers N] [--experts N]\n";
constexpr int64_t kShardBytes = 4'000'000'000;
constexpr int64_t kBlockBytes = int64_t{8} << 20;
// Small, so that residuals stay tame; the values do not matter otherwise.
constexpr float kReach = 0.05f;

struct Request {
  std::string out;
  Config config;
  int bits = 0;  // 0: bf16
  QuantizeOptions quantize;
};

struct Shard {
  std::string name;
  std::vector<TensorInfo> tensors;
  int64_t bytes = 0;
};

int bits_of(const ExpectedTensor& tensor, const Request& request) {
  if (request.bits == 0 || tensor.role == TensorRole::kRouter || tensor.role == TensorRole::kVector) return 0;
  const bool is_head = tensor.role == TensorRole::kEmbedding || tensor.name == "lm_head.weight";
  return is_head ? request.quantize.head_bits : request.bits;
}

TensorInfo tensor_of(std::string name, Dtype dtype, Shape shape) {
  TensorInfo info;
  info.name = std::move(name);
  info.dtype = dtype;
  info.shape = shape;
  return info;
}

std::vector<TensorInfo> stored_as(const ExpectedTensor& tensor, const Request& request) {
  const int bits = bits_of(tensor, request);
  if (bits == 0) {
    const Shape shape = tensor.is_matrix() ? Shape{tensor.rows, tensor.cols} : Shape{tensor.cols};
    return {tensor_of(tensor.name, tensor.is_matrix() ? Dtype::kBF16 : Dtype::kF32, shape)};
  }
  return {tensor_of(tensor.name + "_packed", Dtype::kI32, {tensor.rows, tensor.cols * bits / 32}),
          tensor_of(tensor.name + "_scale", Dtype::kBF16, {tensor.rows, tensor.cols / request.quantize.group_columns}),
          tensor_of(tensor.name + "_shape", Dtype::kI64, {2})};
}

Result<std::vector<Shard>> plan(const Request& request) {
  std::vector<Shard> shards(1);
  RS_CHECK(visit_expected_tensors(request.config, [&](const ExpectedTensor& tensor) -> Status {
    std::vector<TensorInfo> tensors = stored_as(tensor, request);
    int64_t bytes = 0;
    for (const TensorInfo& info : tensors) {
      int64_t count = 1;
      for (size_t i = 0; i < info.shape.dimensions(); ++i) count *= info.shape[i];
      bytes += count * dtype_bytes(info.dtype);
    }
    if (shards.back().bytes > 0 && shards.back().bytes + bytes > kShardBytes) shards.emplace_back();
    shards.back().bytes += bytes;
    std::move(tensors.begin(), tensors.end(), std::back_inserter(shards.back().tensors));
    return Unit{};
  }));
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shards[i].name = name;
  }
  return shards;
}

// Blocks of random values of each kind. A tensor takes the block of its kind again and again, each time from another
// place.
class RandomBlocks {
 public:
  RandomBlocks() : codes_(kBlockBytes), weights_(kBlockBytes), scales_(kBlockBytes) {
    for (int64_t i = 0; i < kBlockBytes; i += 8) {
      const uint64_t word = next();
      std::memcpy(codes_.data() + i, &word, sizeof word);
    }
    for (int64_t i = 0; i < kBlockBytes; i += 2) {
      const float unit = static_cast<float>(static_cast<int32_t>(next() >> 32)) / 2147483648.0f;
      put(weights_, i, kReach * unit);
      put(scales_, i, kReach / 8.0f * (1.0f + 0.25f * unit));
    }
  }

  Status write(OutputFile& file, const TensorInfo& tensor) {
    if (tensor.name.ends_with("_shape")) return write_shape(file, tensor);
    if (tensor.dtype == Dtype::kF32) {
      const std::vector<float> ones(static_cast<size_t>(tensor.length_bytes) / 4,
                                    tensor.name.ends_with("expert_bias") ? 0.0f : 1.0f);
      return file.write(tensor.offset_bytes, ones.data(), tensor.length_bytes);
    }
    const std::vector<char>& from = tensor.name.ends_with("_packed")  ? codes_
                                    : tensor.name.ends_with("_scale") ? scales_
                                                                      : weights_;
    for (int64_t done = 0; done < tensor.length_bytes;) {
      const int64_t start = static_cast<int64_t>(next() % static_cast<uint64_t>(kBlockBytes / 2)) & ~int64_t{63};
      const int64_t count = std::min(tensor.length_bytes - done, kBlockBytes - start);
      RS_CHECK(file.write(tensor.offset_bytes + done, from.data() + start, count));
      done += count;
    }
    return Unit{};
  }

  void remember_shape(const ExpectedTensor& tensor) { shapes_[tensor.name] = {tensor.rows, tensor.cols}; }

 private:
  Status write_shape(OutputFile& file, const TensorInfo& tensor) {
    const std::array<int64_t, 2>& shape = shapes_.at(tensor.name.substr(0, tensor.name.size() - 6));
    return file.write(tensor.offset_bytes, shape.data(), sizeof shape);
  }

  static void put(std::vector<char>& block, int64_t at, float value) {
    const uint16_t bits = float_to_bf16(value);
    std::memcpy(block.data() + at, &bits, sizeof bits);
  }

  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }

  uint64_t state_ = 0x2545f4914f6cdd1dull;
  std::vector<char> codes_, weights_, scales_;
  std::map<std::string, std::array<int64_t, 2>> shapes_;
};

std::string config_text(const Config& config) {
  std::string text =
      "{\n  \"architectures\": [\"BailingMoeLinearV2ForCausalLM\"],\n  \"model_type\": \"bailing_moe_linear\",\n"
      "  \"hidden_act\": \"silu\",\n  \"score_function\": \"sigmoid\",\n  \"norm_topk_prob\": true,\n"
      "  \"use_bias\": false,\n  \"use_qkv_bias\": false,\n  \"use_qk_norm\": true,\n  \"use_rmsnorm\": true,\n"
      "  \"tie_word_embeddings\": false,\n  \"moe_router_enable_expert_bias\": true,\n  \"num_shared_experts\": 1,\n"
      "  \"eos_token_id\": 0";
  const auto add = [&](const char* name, const std::string& value) {
    text += std::string(",\n  \"") + name + "\": " + value;
  };
  const auto add_integer = [&](const char* name, int64_t value) { add(name, std::to_string(value)); };
  add_integer("vocab_size", config.vocab_rows);
  add_integer("hidden_size", config.hidden);
  add_integer("num_hidden_layers", config.layers);
  add_integer("layer_group_size", config.group);
  add_integer("num_attention_heads", config.heads);
  add_integer("num_key_value_heads", config.kv_heads);
  add_integer("head_dim", config.head_dim);
  add_integer("intermediate_size", config.dense_width);
  add_integer("moe_intermediate_size", config.expert_width);
  add_integer("moe_shared_expert_intermediate_size", config.shared_width);
  add_integer("num_experts", config.experts);
  add_integer("num_experts_per_tok", config.experts_per_token);
  add_integer("n_group", config.expert_groups);
  add_integer("topk_group", config.groups_per_token);
  add_integer("first_k_dense_replace", config.dense_layers);
  add_integer("group_norm_size", config.norm_groups);
  add_integer("max_position_embeddings", config.context_tokens);
  add("rms_norm_eps", "1e-06");
  add("routed_scaling_factor", "2.5");
  add("rope_theta", "1000000");
  add("partial_rotary_factor", "0.5");
  return text + "\n}\n";
}

Status write_checkpoint(const Request& request) {
  std::string config = config_text(request.config);
  if (request.bits != 0) {
    RS_TRY(config, with_quantization_config(config, request.quantize, "config.json"));
  }
  RS_TRY(std::vector<Shard> shards, plan(request));
  RandomBlocks blocks;
  RS_CHECK(visit_expected_tensors(request.config, [&](const ExpectedTensor& tensor) -> Status {
    blocks.remember_shape(tensor);
    return Unit{};
  }));
  RS_TRY(OutputFolder folder, OutputFolder::create(request.out));
  std::string index = "{\n  \"weight_map\": {";
  const char* separator = "\n    ";
  for (Shard& shard : shards) {
    const std::string start = layout_safetensors(shard.tensors);
    RS_TRY(OutputFile file, OutputFile::create(folder.path() + "/" + shard.name));
    RS_CHECK(file.write(0, start.data(), static_cast<int64_t>(start.size())));
    for (const TensorInfo& tensor : shard.tensors) {
      RS_CHECK(blocks.write(file, tensor));
      index += separator + json::quote(tensor.name) + ": " + json::quote(shard.name);
      separator = ",\n    ";
    }
    RS_CHECK(file.commit());
  }
  RS_CHECK(write_file(folder.path() + "/model.safetensors.index.json", index + "\n  }\n}\n"));
  RS_CHECK(write_file(folder.path() + "/config.json", config));
  return folder.commit();
}

bool set_option(std::string_view name, const std::string& value, Request& request) {
  const int number = std::atoi(value.c_str());
  if (name == "--shape") {
    const std::optional<Config> config = shape_by_name(value);
    if (config) request.config = *config;
    return config.has_value();
  }
  if (name == "--quant") {
    request.bits = value == "q4" ? 4 : value == "q8" ? 8 : 0;
    request.quantize.bits = request.bits;
    return request.bits != 0 || value == "bf16";
  }
  if (number < 1) return false;
  if (name == "--head-bits") {
    request.quantize.head_bits = number;
  } else if (name == "--group") {
    request.quantize.group_columns = number;
  } else if (name == "--layers") {
    request.config.layers = number;
  } else if (name == "--experts") {
    request.config.experts = number;
  } else {
    return false;
  }
  return true;
}

std::optional<Request> parse_arguments(int argc, char** argv) {
  Request request{};
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--")) {
      if (i + 1 >= argc || !set_option(argument, argv[i + 1], request)) return std::nullopt;
      ++i;
    } else if (request.out.empty()) {
      request.out = argument;
    } else {
      return std::nullopt;
    }
  }
  const bool is_complete = !request.out.empty() && request.config.hidden > 0;
  return is_complete ? std::optional<Request>(std::move(request)) : std::nullopt;
}

}  // namespace

int run_random_checkpoint(int argc, char** argv) {
  const std::optional<Request> request = parse_arguments(argc, argv);
  if (!request) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const Status written = write_checkpoint(*request);
  if (written.ok()) return 0;
  std::fprintf(stderr, "%s\n", written.error().message().c_str());
  return 1;
}

}  // namespace ringside::tools
