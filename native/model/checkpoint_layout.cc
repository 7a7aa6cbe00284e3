#include "model/checkpoint_layout.h"

#include <algorithm>

#include "io/json.h"
#include "model/checkpoint_fp8.h"
#include "model/checkpoint_gptq.h"
#include "model/checkpoint_mlx.h"
#include "model/checkpoint_pack_quantized.h"
#include "model/checkpoint_plain.h"
#include "model/checkpoint_quantization.h"

namespace ringside {

void LayoutSummary::add_plain(const ExpectedTensor& tensor, Dtype dtype) {
  if (tensor.role != TensorRole::kRouter) dtypes_.insert(dtype);
}

void LayoutSummary::add_coded(const ExpectedTensor& tensor, int bits, int64_t group_columns) {
  if (tensor.role == TensorRole::kRouter) return;
  bits_.insert(bits);
  if (group_columns == 0) {
    by_channel_ = true;
  } else {
    groups_.insert(group_columns);
  }
}

std::string LayoutSummary::plain_name() const {
  std::string name;
  for (const Dtype dtype : dtypes_) {
    if (!name.empty()) name += '+';
    name += dtype == Dtype::kBF16 ? "bf16" : dtype == Dtype::kF16 ? "f16" : "f32";
  }
  return name;
}

std::string LayoutSummary::coded_name(const std::string& how) const {
  if (!has_coded()) return plain_name();
  std::string name;
  for (const int bits : bits_) name += (name.empty() ? "q" : "+q") + std::to_string(bits);
  std::string groups;
  for (const int64_t columns : groups_) groups += (groups.empty() ? "group " : "+") + std::to_string(columns);
  if (by_channel_) groups += groups.empty() ? "channel" : "+channel";
  return name + " (" + how + ", " + groups + ")";
}

Result<std::unique_ptr<CheckpointLayout>> open_layout(const std::string& config_text, const std::string& config_path,
                                                      const Config& config, const CheckpointFiles& files) {
  json::Document document;
  RS_CHECK(document.parse(config_text, config_path));
  const json::Value mlx = document.root().find("quantization");
  const QuantizationFields mlx_fields(mlx, config_path + ": quantization");
  if (!mlx.is_null()) return open_mlx(mlx_fields, config.experts, files);
  const json::Value quantization = document.root().find("quantization_config");
  if (quantization.is_null()) {
    if (has_mlx_names(files)) return open_mlx(std::nullopt, config.experts, files);
    return std::unique_ptr<CheckpointLayout>(new PlainLayout(files));
  }
  const QuantizationFields fields(quantization, config_path + ": quantization_config");
  // MLX alone writes the member without a method.
  if (!fields.find("group_size").is_missing() && fields.find("quant_method").is_missing()) {
    return open_mlx(fields, config.experts, files);
  }
  RS_TRY(const std::string_view method,
         fields.one_of("quant_method", {"compressed-tensors", "gptq", "fp8"}, std::nullopt));
  if (method == "gptq") return open_gptq(fields, files);
  if (method == "fp8") return open_fp8(fields, files);
  return open_pack_quantized(fields, files);
}

}  // namespace ringside
