#include "tools/fuzz_targets.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/generation_config.h"
#include "model/tokenizer.h"

namespace ringside::tools {
namespace {

// Readers take paths, as the product does. The folder lies in memory where the system has such a place, and goes when
// the process ends.
class ScratchFolder {
 public:
  ScratchFolder() {
    const std::string parent =
        std::filesystem::exists("/dev/shm") ? "/dev/shm" : std::filesystem::temp_directory_path().string();
    std::string pattern = parent + "/ringside-fuzz-XXXXXX";
    must_hold(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string put(const char* name, std::string_view bytes) const {
    const std::string file = path_ + "/" + name;
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file;
  }

 private:
  std::string path_;
};

const ScratchFolder& scratch() {
  static const ScratchFolder folder;
  return folder;
}

constexpr const char* kSmallConfig =
    R"({"architectures":["BailingMoeLinearV2ForCausalLM"],"model_type":"bailing_moe_linear","hidden_act":"silu",)"
    R"("score_function":"sigmoid","norm_topk_prob":true,"router_dtype":"fp32","moe_router_enable_expert_bias":true,)"
    R"("use_rmsnorm":true,"use_qk_norm":true,"use_bias":false,"use_qkv_bias":false,"tie_word_embeddings":false,)"
    R"("rope_scaling":null,"rms_norm_eps":1e-06,"num_shared_experts":1,"first_k_dense_replace":1,)"
    R"("num_nextn_predict_layers":0,"routed_scaling_factor":2.5,"max_position_embeddings":1024,)"
    R"("partial_rotary_factor":0.5,"torch_dtype":"bfloat16","eos_token_id":0,"pad_token_id":0,"vocab_size":8,)"
    R"("hidden_size":32,"num_hidden_layers":2,"layer_group_size":2,"num_attention_heads":2,"num_key_value_heads":1,)"
    R"("head_dim":16,"intermediate_size":32,"moe_intermediate_size":32,"moe_shared_expert_intermediate_size":32,)"
    R"("num_experts":2,"num_experts_per_tok":1,"n_group":1,"topk_group":1,"group_norm_size":1,"linear_silu":false,)"
    R"("rope_theta":10000)";

void check_matrix(const Matrix& matrix) {
  must_hold(matrix.rows > 0 && matrix.cols > 0);
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  for (int64_t i = 0; i < matrix.rows; ++i) matrix.row_to_float(i, row.data());
}

// Follows the specification's list for the small shape.
Status read_small_checkpoint(const Checkpoint& checkpoint) {
  struct Named {
    const char* base;
    int64_t rows, cols;
  };
  constexpr Named kMatrices[] = {
      {"model.word_embeddings", 8, 32},
      {"lm_head", 8, 32},
      {"model.layers.0.attention.query_key_value", 96, 32},
      {"model.layers.0.attention.g_proj", 32, 32},
      {"model.layers.0.mlp.down_proj", 32, 32},
      {"model.layers.1.attention.query_key_value", 64, 32},
      {"model.layers.1.mlp.gate", 2, 32},
      {"model.layers.1.mlp.experts.1.up_proj", 32, 32},
      {"model.layers.1.mlp.shared_experts.gate_proj", 32, 32},
  };
  for (const Named& named : kMatrices) {
    RS_TRY(const Matrix matrix, checkpoint.read_matrix(named.base, named.rows, named.cols));
    must_hold(matrix.rows == named.rows && matrix.cols == named.cols);
    check_matrix(matrix);
  }
  RS_TRY(const std::vector<float> norm, checkpoint.read_vector("model.norm.weight", 32));
  must_hold(norm.size() == 32);
  return Unit{};
}

}  // namespace

Status fuzz_safetensors(std::string_view bytes) {
  RS_TRY(const SafetensorsFile file, SafetensorsFile::open(scratch().put("model.safetensors", bytes)));
  int64_t total_bytes = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    must_hold(is_tensor_name(tensor.name));
    must_hold(tensor.offset_bytes >= 8 && tensor.length_bytes >= 0);
    must_hold(tensor.offset_bytes + tensor.length_bytes <= static_cast<int64_t>(bytes.size()));
    total_bytes += tensor.length_bytes;
    char last = 0;
    if (tensor.length_bytes > 0) RS_CHECK(file.read(tensor, tensor.length_bytes - 1, &last, 1));
    must_hold(!file.read(tensor, tensor.length_bytes, &last, 1).ok());
  }
  must_hold(total_bytes <= static_cast<int64_t>(bytes.size()));
  return Unit{};
}

Status fuzz_config(std::string_view bytes) {
  const std::string text(bytes);
  Config other{};
  (void)add_generation_config(text, "generation_config.json", other);
  must_hold(std::is_sorted(other.stop_tokens.begin(), other.stop_tokens.end()));
  RS_TRY(const Config config, parse_config(text, "config.json"));
  must_hold(config.layers >= 1 && config.heads >= 1 && config.head_dim >= 1 && config.kv_heads >= 1);
  must_hold(config.heads % config.kv_heads == 0 && config.hidden >= 1 && config.vocab_rows >= 1);
  must_hold(config.linear_layers() + config.softmax_layers() == config.layers);
  must_hold(config.experts_per_token <= config.experts && config.groups_per_token <= config.expert_groups);
  must_hold(config.rotary_dim % 2 == 0 && config.rotary_dim <= config.head_dim);
  for (int32_t head = 0; head < config.heads; ++head) must_hold(std::isfinite(config.slope(0, head)));
  for (int32_t j = 0; j < config.rotary_dim / 2; ++j) must_hold(std::isfinite(config.inv_freq(j)));
  return Unit{};
}

Status fuzz_tokenizer(std::string_view bytes) {
  RS_TRY(const auto tokenizer, Tokenizer::parse(bytes, "tokenizer.json"));
  constexpr std::string_view kText = "int main() { return 42; } // \xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\xFF\r\n\t ";
  for (const std::vector<int32_t>& ids : {tokenizer->encode(kText), tokenizer->encode_with_added(kText)}) {
    for (const int32_t id : ids) must_hold(id >= 0 && id < tokenizer->size());
    must_hold(tokenizer->decode(ids) == kText);
  }
  return Unit{};
}

Status fuzz_encode(std::string_view bytes) {
  static const Result<std::unique_ptr<Tokenizer>> shipped = []() -> Result<std::unique_ptr<Tokenizer>> {
    const std::string path = std::string(RS_NANO_DIR) + "/tokenizer.json";
    RS_TRY(const std::string text, read_text(path, int64_t{64} << 20));
    return Tokenizer::parse(text, path);
  }();
  must_hold(shipped.ok());
  const Tokenizer& tokenizer = *shipped.value();
  const std::vector<int32_t> ids = tokenizer.encode(bytes);
  // Exact, invalid UTF-8 included; and no text may spell an added token (house invariant 5).
  must_hold(tokenizer.decode(ids) == bytes);
  const int32_t role_end = tokenizer.added_id("<|role_end|>");
  for (const int32_t id : ids) must_hold(id >= 0 && id < tokenizer.size() && (role_end < 0 || id != role_end));
  must_hold(tokenizer.decode(tokenizer.encode_with_added(bytes)) == bytes);
  Utf8Stream stream;
  for (const int32_t id : ids) (void)stream.push(tokenizer.bytes(id));
  return Unit{};
}

Status fuzz_checkpoint(std::string_view bytes) {
  const size_t zero = bytes.find('\0');
  if (zero == std::string_view::npos) return Error{ErrorKind::kFileMalformed, "input", "a zero byte", "none"};
  scratch().put("config.json", std::string(kSmallConfig) + std::string(bytes.substr(0, zero)) + "}");
  scratch().put("model.safetensors", bytes.substr(zero + 1));
  RS_TRY(const auto checkpoint, Checkpoint::open(scratch().path()));
  return read_small_checkpoint(*checkpoint);
}

}  // namespace ringside::tools
